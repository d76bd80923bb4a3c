"""GSM8K and MATH, beside the checkout: the figures of benchmarks/answers.py, on part of the data."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT.parent / "shared" / "data"
BENCHMARK = ROOT / "benchmarks" / "answers.py"

pytestmark = pytest.mark.skipif(
    not (BENCHMARK.exists() and (DATA / "gsm8k_train.jsonl").exists() and (DATA / "math_train_answers.json").exists()),
    reason=f"needs the checkout, and gsm8k_train.jsonl and math_train_answers.json in {DATA}",
)


def load():
    sys.path.insert(0, str(BENCHMARK.parent))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_answers", BENCHMARK)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARK.parent))
    return module


benchmark = load() if BENCHMARK.exists() else None
ENDINGS = list(benchmark.ENDINGS) if benchmark else []
REWRITINGS = list(benchmark.REWRITINGS) if benchmark else []


@pytest.fixture(scope="module")
def solutions():
    return benchmark.solutions(DATA)[::5]


@pytest.fixture(scope="module")
def math_answers():
    return benchmark.math_answers(DATA)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_extracted_from_a_solution_is_its_label(ending, solutions):
    assert len(solutions) > 1000
    wrong = benchmark.wrong_extractions(ending, solutions)
    assert len(wrong) <= 0.005 * len(solutions), wrong[:5]


@pytest.mark.parametrize("rewriting", REWRITINGS)
def test_an_answer_is_still_itself_when_harmlessly_rewritten(rewriting, math_answers):
    changed, other = benchmark.broken(rewriting, sorted(set(math_answers)))
    assert changed > 10
    assert not other


def test_an_answer_differs_from_the_next(math_answers):
    differing, _, wrong = benchmark.held_equal(math_answers)
    assert differing > 6000
    assert not wrong

"""Step labels by rollouts: what a first error costs, and what labels are worth at equal rollouts.

    python benchmarks/labelling.py            some CPU minutes
    python benchmarks/labelling.py --quick    a tenth of it

First table: a wrong solution of M steps whose first error is known, at every place in turn, k = 8. OmegaPRM bisects,
Math-Shepherd rolls out from every step.

Second table: puzzles that the embedded policy was not trained on, labelled by each method until so many rollouts are
spent. The labels against the exact solver: is the state solvable? Third table: a reward model trained on them, from the
policy's trunk, on the validation puzzles (ranks 801-900): AUC and ECE of its scores of sampled states against the
solver, and beam search with it, which spends about the same tokens with each. Needs PyTorch.
"""

import asyncio
import math
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from _report import Report, parse_quick
from _reward import LEARNER, MEASURES, QUESTIONS, measures, states
from o1_reason_embedded import EmbeddedPolicy, RuleVerifier
from o1_reason_embedded.policy import WEIGHTS
from o1_reason_embedded.solver import Solver
from o1_reason_embedded.train.traces import played_puzzles

from o1_reason import Proposals, State, Step, Usage
from o1_reason.audit.metrics import Pair, area
from o1_reason.learn import GoldChecker, MathShepherd, MiPS, OmegaPRM, Problem, RecordStore, VerifierChecker, label
from o1_reason.learn.labelling import Method
from o1_reason.learn.omega_prm import OmegaSearch
from o1_reason.learn.rollouts import Roller

K = 8
EPOCHS = 4
WORLD = Problem("q", "right")


@dataclass(frozen=True)
class Erring:
    """Solutions of `length` steps; the last sample of a call errs at step `error`, and after an error all is lost."""

    length: int
    error: int
    identity: str = "erring"

    async def propose(self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None) -> Proposals:
        lost = any("error" in step.text for step in state.steps)
        return Proposals(tuple(self._way(len(state.steps), lost, i == n - 1) for i in range(n)), Usage(1))

    def _way(self, depth: int, lost: bool, last: bool) -> tuple[Step, ...]:
        error = max(self.error, depth + 1) if last and not lost else None
        texts = [f"{at} error" if at == error else f"{at}" for at in range(depth + 1, self.length + 1)]
        return (*map(Step, texts[:-1]), Step(texts[-1], True, "wrong" if last or lost else "right"))


async def first_errors(report: Report, lengths: Iterable[int]) -> None:
    rows: list[list[str]] = []
    kept = True
    for length in lengths:
        spent: list[int] = []
        for error in range(1, length + 1):
            search = OmegaSearch(OmegaPRM(K, searches=1), WORLD, Roller(Erring(length, error), GoldChecker()))
            await search.run()
            steps = tuple(step.text for step in search.selected[0].rollout.steps)
            kept &= search.labels[steps[:error]][0] == 0 and (error == 1 or search.labels[steps[: error - 1]][0] != 0)
            spent.append(search.drawn - K)  # without those of the question itself
        bound, each = K * math.ceil(math.log2(length)), K * (length - 1)
        kept &= max(spent) <= bound
        rows.append([str(length), f"{statistics.mean(spent):.1f}", str(max(spent)), str(bound), str(each)])
    columns = ["steps M", "OmegaPRM, mean", "most", "k ceil(log2 M)", "Math-Shepherd, k (M - 1)"]
    report.table(f"Rollouts until the first error is known, k = {K}", columns, rows)
    report.promise(kept, "the first error is found wherever it is, with at most k ceil(log2 M) rollouts")


async def worth(report: Report, rollouts: int, puzzles: int) -> None:
    """`rollouts` are spent on at most `puzzles` training puzzles, by each method alike."""
    training = [" ".join(map(str, numbers)) for numbers in played_puzzles(0, puzzles, reserved=True)]
    questions = QUESTIONS[: max(20, puzzles // 4)]
    drawn = await states(EmbeddedPolicy(), questions)
    methods: dict[str, Method] = {
        "Math-Shepherd, hard": MathShepherd(4, K),
        "Math-Shepherd, soft": MathShepherd(4, K, soft=True),
        "MiPS": MiPS(8, K),
        "OmegaPRM": OmegaPRM(K),
    }
    labels: list[list[str]] = []
    trained: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, method in methods.items():
            rows, out = Path(folder, f"{name}.jsonl"), Path(folder, name)
            labels.append([name, *await _labelled(training, method, rollouts, rows)])
            LEARNER.train_prm(
                rows, WEIGHTS, out, objective="regression", seed=0, report=lambda _: None, fresh=True, epochs=EPOCHS,
                batch=64,
            )  # fmt: skip
            trained.append([name, *await measures(EmbeddedPolicy(), out, questions, drawn)])
    columns = ["method", "puzzles", "rollouts", "rows", "labels", "of them 0", "AUC", "wrong at 0.5", "s"]
    note = (
        "Of steps before the last. AUC: of a label against whether the solver still finds a way, 95 % CI over puzzles."
    )
    report.table(f"Labels for {rollouts} rollouts of the embedded policy", columns, labels, note)
    note = f"{EPOCHS} epochs each, one seed; {len(drawn)} states of {len(questions)} puzzles"
    report.table(f"Reward models trained on them, {rollouts} rollouts each", ["method", *MEASURES], trained, note)


async def _labelled(questions: list[str], method: Method, rollouts: int, path: Path) -> list[str]:
    store, rules = RecordStore(path), VerifierChecker(RuleVerifier())
    spent, used, started = 0, 0, time.perf_counter()
    while spent < rollouts and used < len(questions):
        spent += (await label([Problem(questions[used])], method, EmbeddedPolicy(), rules, store)).rollouts
        used += 1
    seconds = time.perf_counter() - started
    pairs: list[Pair] = []
    puzzles: list[str] = []
    count = 0
    for row in store:
        count += 1
        (score,) = await Solver().score([State(row["prompt"], tuple(map(Step, row["completions"])))])
        for at, (value, true) in enumerate(zip(row["labels"], score.rewards, strict=True)):
            if value is not None and at < 2:
                pairs.append((value, true == 1))
                puzzles.append(row["prompt"])
    found = area(pairs, puzzles)
    auc = "-" if found is None else f"{found.value:.3f} ({found.low:.2f}-{found.high:.2f})"
    wrong = statistics.mean((value > 0.5) != true for value, true in pairs)
    zeros = statistics.mean(value == 0 for value, _ in pairs)
    return [str(used), str(spent), str(count), str(len(pairs)), f"{zeros:.0%}", auc, f"{wrong:.0%}", f"{seconds:.1f}"]


async def main(quick: bool) -> None:
    torch.set_num_threads(1)  # small matrices: a second thread mostly waits
    report = Report()
    await first_errors(report, (2, 4, 8, 16) if quick else (2, 4, 8, 16, 32, 64))
    await worth(report, 1_200 if quick else 12_000, 80 if quick else 440)
    report.exit()


if __name__ == "__main__":
    asyncio.run(main(parse_quick(__doc__)))

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o1_reason import SelfConsistency, Step, search
from o1_reason.answers import answer_key, answer_keys, canonical, classes, equivalent, mathematics
from o1_reason.answers.mathematics import UnansweredError, Worker, plain_key
from o1_reason.testing import ScriptedPolicy

ENDLESS = "2^{3^{4^{5^6}}}"
BACKTRACKING = "(a+)+$", "a" * 40 + "b", True


@pytest.fixture
def own_worker(monkeypatch):
    """Installs a worker in place of the shared one; gives up after two seconds."""
    own = Worker(seconds=2.0)
    monkeypatch.setattr(mathematics, "worker", lambda: own)
    yield own
    own.close()
    own.executor.shutdown()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("2 * 12", "24"),
        ("x+1", "1+x"),
        ("\\frac{\\sqrt{2}}{2}", "1/\\sqrt{2}"),
        ("(x+1)^2", "x^2 + 2x + 1"),
        ("\\sin^2 x + \\cos^2 x", "1"),
        ("0 + x", "x"),
        ("\\tan 15^\\circ", "2 - \\sqrt{3}"),
        ("\\sqrt[3]{-8}", "-2"),
        ("\\sqrt{-4}", "2i"),
        ("(1+i)(1-i)", "2"),
        ("e^{i\\pi}", "-1"),
        ("\\sqrt{3+2\\sqrt2} - \\sqrt2", "1"),
        ("\\log_2 8", "3"),
        ("\\ln e^2", "2"),
        ("2^{-98}", "\\frac{1}{2^{98}}"),
        ("2 \\times 10^5", "200,000"),
        ("\\binom{10}{3}", "120"),
        ("5!", "120"),
        ("5(3)", "15"),
        ("(2)(3)", "6"),
        ("3.5x", "\\frac{7x}{2}"),
        ("\\sqrt{x^2}", "|x|"),
        ("\\sqrt{9p^3}", "3p\\sqrt{p}"),
        ("\\lfloor 2.5 \\rfloor", "2"),
        ("\\sum_{k=1}^{10} k", "55"),
        ("-\\infty", "- \\infty"),
    ],
)
def test_expressions_of_equal_value_are_one_answer(a, b):
    assert equivalent(a, b)
    assert equivalent(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1, 2", "2, 1"),
        ("\\{1, 2\\}", "2, 1"),
        ("\\{5\\}", "5"),
        ("x = 1 or x = 2", "1, 2"),
        ("x = 2 \\pm \\sqrt{3}", "2 + \\sqrt3, 2 - \\sqrt3"),
        ("x = 1, y = 2", "y = 2, x = 1"),
        ("(0.5, \\sqrt{4})", "\\left(\\frac12, 2\\right)"),
        ("(-\\infty, 0) \\cup (1, 2]", "(1, 2] \\cup (-\\infty, 0)"),
        ("x > 5", "(5, \\infty)"),
        ("5 < x", "x > 5"),
        ("-1 < x \\le 3", "(-1, 3]"),
        ("3 \\ge x > -1", "(-1, 3]"),
        ("-80 \\leq g(x) \\leq 82", "[-80, 82]"),
        ("y = 2x - 13", "4x - 2y = 26"),
        ("x^2 + y^2 = 4", "4 - x^2 = y^2"),
        ("x + y < 2", "2x + 2y - 4 < 0"),
        ("x \\ne 3", "2x \\neq 6"),
        ("f(x) = 2x + 1", "1 + 2x"),
        ("V = 3r", "3r"),
        ("0.56 = 56\\%", "14/25"),
        ("\\frac23 \\approx 0.67", "2/3"),
        ("\\begin{pmatrix} 1/2 \\\\ 1 \\end{pmatrix}", "\\begin{bmatrix} 0.5 \\\\ \\frac{3}{3} \\end{bmatrix}"),
        ("\\{\\}", "\\varnothing"),
        ("March 5, Monday", "Monday, March 5"),
    ],
)
def test_answers_with_equal_parts_are_one_answer(a, b):
    assert equivalent(a, b)
    assert equivalent(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1", "2"),
        ("", "0"),
        ("1/3", "0.333"),
        ("\\sqrt{2}", "1.41421356"),
        ("\\sqrt{x^2}", "x"),
        ("x", "y"),
        ("2x", "x^2"),
        ("\\sin x", "x"),
        ("2^{10000}", "2^{10000} - 1"),
        ("2^{1000000}", "2^{1000000} - 1"),
        ("10001_2", "10001"),
        ("10001_2", "17"),
        ("1:2", "1/2"),
        ("(1, 2)", "(2, 1)"),
        ("(1, 2)", "[1, 2]"),
        ("(1, 2)", "1, 2"),
        ("1, 1", "1"),
        ("x = 1, y = 2", "x = 2, y = 1"),
        ("xy = 1", "1"),
        ("x > 5", "x \\ge 5"),
        ("x > 5", "x < 5"),
        ("x + y < 2", "x + y > 2"),
        ("x + y = 2", "x + y = 3"),
        ("x + y = 2", "x + y \\ne 2"),
        ("3 = 4", "5 = 6"),
        ("\\begin{pmatrix} 1 & 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
        ("\\frac{1}{0}", "\\infty"),
        ("Paris", "Rome"),
    ],
)
def test_different_answers_stay_different(a, b):
    assert not equivalent(a, b)


numbers = st.integers(-9, 9).map(str) | st.sampled_from(["x", "y", "\\pi", "\\sqrt{2}", "i"])
operations = [
    lambda a, b: (f"({a})+({b})", f"{{{b}}}+({a})"),
    lambda a, b: (f"({a})({b})", f"({b}) \\cdot ({a})"),
    lambda a, b: (f"({a})-({b})", f"-(({b})-({a}))"),
    lambda a, b: (f"\\frac{{{a}}}{{7}}", f"({a})/7"),
    lambda a, b: (f"({a})^2", f"({a})\\times({a})"),
]


def _both(parts):
    operation, (a, a_), (b, b_) = parts
    return operation(a, b)[0], operation(a_, b_)[1]


written_twice = st.recursive(
    numbers.map(lambda text: (text, text)),
    lambda inner: st.tuples(st.sampled_from(operations), inner, inner).map(_both),
    max_leaves=4,
)


@settings(max_examples=60)
@given(written_twice)
def test_an_expression_written_in_two_ways_is_one_answer(pair):
    assert equivalent(*pair)
    assert not equivalent(pair[0], f"{pair[1]}+1")


answers = (
    st.text(max_size=8)
    | written_twice.map(lambda pair: pair[0])
    | st.sampled_from(
        [
            "1/2",
            "0.5",
            "50%",
            "\\frac12",
            "x=1/2",
            "\\sqrt{1/4}",
            "1, 2",
            "\\{2,1\\}",
            "(1,2)",
            "x<2",
            "2>x",
            "(",
            "\\frac{",
        ]
    )
)


@settings(max_examples=60)
@given(answers, answers, answers)
def test_being_equivalent_is_an_equivalence(a, b, c):
    assert equivalent(a, a)
    assert equivalent(a, b) == equivalent(b, a)
    assert not (equivalent(a, b) and equivalent(b, c)) or equivalent(a, c)
    assert equivalent(a, canonical(a))


async def test_classes_have_a_representative_and_all_their_members():
    given_ = ["\\frac{2}{4}", "x + 1", "Yes", "0.5", "1+x", "\\text{yes}", "7"]
    assert await classes(given_) == {"1/2": [0, 3], "1+x": [1, 4], "yes": [2, 5], "7": [6]}


@pytest.mark.parametrize(
    "answer", ["24", "-1/2", "1,234", "blue", "New York", "(0.5, 1)", "x = 3", "x > 5", "1, 2", "B"]
)
def test_plain_answers_need_no_process_and_no_waiting(answer, monkeypatch):
    monkeypatch.setattr(mathematics, "worker", lambda: pytest.fail("it was asked"))
    with pytest.raises(StopIteration) as done:
        answer_keys([answer]).send(None)
    assert done.value.value == [plain_key(canonical(answer))]
    assert equivalent(answer, f" {answer}. ")


async def test_what_is_known_is_not_asked_again(own_worker):
    first = await answer_key("2 * 12")
    own_worker.close()
    assert await answer_key("2*12") == first == "24"
    assert own_worker.started == 1


@pytest.mark.parametrize(
    "text",
    [
        "10^{10^{10}}",
        "10^{10^{10^{10}}}",
        "(10^9)!",
        "\\binom{10^9}{5\\cdot10^8}",
        "\\sum_{k=1}^{10^{12}}\\frac{1}{k^2+\\sin k}",
        "\\prod_{k=1}^{10^9} k",
        "(x+1)^{10^8}",
        "\\sqrt{" * 200 + "2" + "}" * 200,
        "(" * 900 + "1+x" + ")" * 900,
        "[" * 1900,
        "1" * 1900 + "+x",
        "x" + "^x" * 900,
        "1+" * 100_000,
        "\ud800+1",
    ],
    ids=lambda text: text[:12].encode("ascii", "replace").decode(),
)
def test_hostile_mathematics_ends_and_disturbs_nothing_after_it(text):
    started = time.perf_counter()
    assert not equivalent(text, "2+3")
    assert time.perf_counter() - started < 30
    assert equivalent("\\sqrt{8}", "2\\sqrt{2}")


def test_an_answer_that_takes_too_long_is_compared_as_text_and_the_process_is_replaced(own_worker):
    assert own_worker.key("\\sqrt{4}") == "2"
    assert own_worker.key(ENDLESS) == ENDLESS
    assert own_worker.started == 1
    assert own_worker.key("\\sqrt{9}") == "3"
    assert own_worker.started == 2
    assert equivalent(ENDLESS, f"${ENDLESS}$")


def test_a_process_that_is_killed_is_replaced(own_worker):
    assert own_worker.key("\\sqrt{4}") == "2"
    os.kill(own_worker._process.pid, signal.SIGKILL)
    own_worker._process.wait()
    assert own_worker.key("\\sqrt{9}") == "3"
    threading.Timer(0.5, lambda: os.kill(own_worker._process.pid, signal.SIGKILL)).start()
    with pytest.raises(UnansweredError):
        own_worker.ask("matches", *BACKTRACKING)
    assert own_worker.key("\\sqrt{16}") == "4"
    assert own_worker.started == 3


def test_memory_is_limited(own_worker):
    with pytest.raises(UnansweredError):
        own_worker.ask("matches", "a", "a" * 10, "b" * 10, "too many arguments")
    script = "import resource; from o1_reason.answers import mathworker as m; m.limit_memory(); bytearray(m.MEMORY)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "MemoryError" in ran.stderr
    assert own_worker.started == 1


def test_without_a_process_answers_are_compared_as_text_and_it_says_so_once(own_worker, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.warns(RuntimeWarning, match="compared as text"):
        assert not equivalent("\\sqrt{4}", "2")
    assert not equivalent("\\sqrt{9}", "3")
    assert equivalent("\\dfrac12", "0.5")


def test_threads_may_ask_at_once_and_no_signal_is_used(own_worker):
    handler = signal.getsignal(signal.SIGALRM)
    found = {}

    def ask(n):
        found[n] = own_worker.key(f"\\sqrt{{{n * n}}}")

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(2, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: str(n) for n in range(2, 12)}
    assert own_worker.started == 1
    assert signal.getsignal(signal.SIGALRM) is handler


async def test_the_event_loop_goes_on_and_a_cancelled_question_is_let_go_of(own_worker):
    assert await answer_key("\\sqrt{4}") == "2"
    task = asyncio.create_task(answer_key(ENDLESS))
    ticks = 0
    while ticks < 20:
        await asyncio.sleep(0.01)
        ticks += 1
    assert not task.done()
    task.cancel()
    started = time.perf_counter()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.perf_counter() - started < 1
    assert await answer_key("\\sqrt{9}") == "3"


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in which `shared` is the worker and `alive(pid)` says whether a process runs."""
    head = """
        import os, signal, sys, time
        from o1_reason.answers import equivalent
        from o1_reason.answers.mathematics import worker
        shared = worker()
        assert equivalent("2 * 12", "24")
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")


@linux
def test_the_process_ends_with_its_parent():
    ran = run("print(shared._process.pid)")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not alive(int(ran.stdout))


@linux
def test_the_process_ends_even_if_it_is_busy_when_its_parent_is_killed():
    ran = run(
        """
        import threading
        print(shared._process.pid, flush=True)
        shared.seconds = 1
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        shared.ask("matches", "(a+)+$", "a" * 40 + "b", True)
        """
    )
    assert ran.returncode == -signal.SIGKILL
    until = time.monotonic() + 20
    while alive(int(ran.stdout)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(int(ran.stdout))


@linux
def test_a_forked_child_has_a_process_of_its_own():
    ran = run(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            os._exit(0 if equivalent("\\\\sqrt{9}", "3") and shared.started == 2 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert equivalent("\\\\sqrt{16}", "4") and shared.started == 1
        """
    )
    assert (ran.returncode, ran.stderr) == (0, "")


async def test_a_vote_counts_what_is_mathematically_equal_as_one_answer():
    written = ["2", "\\frac{\\sqrt{2}}{2}", "3", "1/\\sqrt{2}", "2"]
    policy = ScriptedPolicy({(): [Step(f"so it is {text}", True, text) for text in [*written, "\\sqrt{1/2}"]]})
    result = await search("?", policy, strategy=SelfConsistency(6))
    assert result.answer == "\\frac{\\sqrt{2}}{2}"
    assert result.ranking == (("\\frac{\\sqrt{2}}{2}", 0.5), ("2", 2 / 6), ("3", 1 / 6))


async def test_a_policy_that_sets_keys_decides_itself_what_is_one_answer():
    steps = [Step("a", True, "2 * 12", key="a"), Step("b", True, "24", key="b"), Step("c", True, "24", key="b")]
    result = await search("?", ScriptedPolicy({(): steps}), strategy=SelfConsistency(3))
    assert result.ranking == (("24", 2 / 3), ("2 * 12", 1 / 3))

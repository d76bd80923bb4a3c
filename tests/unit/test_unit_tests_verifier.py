import asyncio

import pytest

from o1_reason import BestOfN, ConfigurationError, Gate, State, Step, Usage, VerifierError, search
from o1_reason.sandbox import Limits, Sandbox, box
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier, check_verifier
from o1_reason.verifiers.unit_tests import UnitTests, code_of
from o1_reason.verifiers.unit_tests_inside import tests_in as found_in

LIMITS = Limits(seconds=20, cpu_seconds=10)
SHARED = Sandbox(LIMITS)
SQUARE = """
from math import isclose
assert square(3) == 9
assert square(-2) == 4
def test_a_fraction():
    assert isclose(square(1.5), 2.25)
def test_several():
    assert all(square(n) == n ** 2 for n in range(5)) and [square(n) for n in (1, 2)] == [1, 4]
"""
RIGHT = "def square(x):\n    return x * x"


@pytest.fixture
async def sandbox():
    try:
        await SHARED.mechanism()
    except ConfigurationError as error:
        pytest.skip(str(error))
    return SHARED


def finished(code, answer=None):
    return State("q", (Step("Here it is:"), Step(f"```python\n{code}\n```", True, answer)))


async def judged(verifier, code):
    (score,) = await verifier.score([finished(code)])
    (reward,) = score.rewards
    return reward, score.critique or ""


def short(sandbox, **limits):
    other = Sandbox(Limits(**{"seconds": 20, "cpu_seconds": 10, **limits}))
    other._found = sandbox._found
    return other


# Input and output.

DOUBLE = [("1\n", "2\n"), ("21\n", "42")]


async def test_a_program_is_right_if_it_says_what_is_expected_in_every_case(sandbox):
    verifier = UnitTests(DOUBLE, sandbox=sandbox)
    assert await judged(verifier, "print(int(input()) * 2)") == (1.0, "")
    assert await judged(verifier, "if __name__ == '__main__':\n    print(int(input()) * 2, ' ')\n    print()") == (
        1.0,
        "",
    )
    assert await judged(verifier, "print(2)") == (0.0, "failed: case 2 (wrong output)")


async def test_a_case_needs_a_good_end_as_well_as_the_right_words(sandbox):
    verifier = UnitTests(DOUBLE, sandbox=sandbox)
    assert await judged(verifier, "print(int(input()) * 2); 1 / 0") == (0.0, "failed: case 1 (exit status 1)")
    assert await judged(verifier, "import os; os._exit(0)") == (0.0, "failed: case 1 (wrong output)")
    assert (await judged(verifier, "print('2\\n42')"))[0] == 0.0


async def test_cases_that_hang_or_flood_fail_with_the_reason(sandbox):
    verifier = UnitTests(DOUBLE, sandbox=short(sandbox, seconds=3.0, output=1000), partial=True)
    assert await judged(verifier, "if input() == '1':\n    print(2)\nelse:\n    import time; time.sleep(99)") == (
        0.5,
        "1 of 2 tests passed; failed: case 2 (took too long)",
    )
    assert (await judged(verifier, "while True: print(2)"))[1].endswith(
        "case 1 (wrote too much), case 2 (wrote too much)"
    )


async def test_without_partial_credit_the_first_failure_is_the_last_run(sandbox, monkeypatch):
    runs = []
    run = Sandbox.run

    async def counted(self, program, stdin=b""):
        runs.append(stdin)
        return await run(self, program, stdin)

    monkeypatch.setattr(Sandbox, "run", counted)
    await judged(UnitTests([("1", "x"), ("2", "x")], sandbox=sandbox), "print(1)")
    assert runs == [b"1"]
    await judged(UnitTests([("1", "x"), ("2", "x")], sandbox=sandbox, partial=True), "print(1)")
    assert runs == [b"1", b"1", b"2"]


# Python tests: what an honest candidate can do.


async def test_a_right_function_passes_and_a_wrong_one_does_not(sandbox):
    verifier = UnitTests(SQUARE, sandbox=sandbox)
    assert await judged(verifier, RIGHT) == (1.0, "")
    assert await judged(verifier, "def square(x):\n    return 9") == (0.0, "failed: assert on line 4 (AssertionError)")


async def test_partial_credit_is_the_share_of_tests_passed(sandbox):
    verifier = UnitTests(SQUARE, sandbox=sandbox, partial=True)
    assert await judged(verifier, "def square(x):\n    return abs(x) * int(abs(x))") == (
        0.75,
        "3 of 4 tests passed; failed: test_a_fraction (AssertionError)",
    )


HONEST = """
import math
from dataclasses import dataclass

LIMIT = 7

class EmptyError(LookupError):
    pass

class VeryEmptyError(EmptyError):
    pass

class Stack:
    def __init__(self, *items):
        self.items = list(items)
    def push(self, item):
        self.items.append(item)
        return self
    def pop(self):
        if not self.items:
            raise VeryEmptyError("nothing left")
        return self.items.pop()
    def __len__(self):
        return len(self.items)
    def __contains__(self, item):
        return item in self.items
    def __getitem__(self, i):
        return self.items[i]

@dataclass
class Point:
    x: int
    y: int
    def __add__(self, other):
        return Point(self.x + other.x, self.y + other.y)

def count(n):
    for i in range(n):
        yield i

def apply(function, items, *, twice=False):
    return [function(function(item)) if twice else function(item) for item in items]

def echo(value):
    return value

def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)

def noisy():
    print("passed", flush=True)
    return input()
"""


@pytest.mark.parametrize(
    "test",
    [
        "s = Stack(1); assert s.push(2) is s and len(s) == 2 and 2 in s and s[0] == 1 and s.items == [1, 2] and s",
        "assert not Stack() and isinstance(Stack(), Stack) and not isinstance(3, Stack)",
        "assert Point(1, 2) == Point(1, 2) != Point(1, 3) and (Point(1, 2) + Point(1, 1)).x == 2",
        "assert Point(1, 2) != (1, 2) and repr(Point(1, 2)) == 'Point(x=1, y=2)'",
        "p = Point(1, 2); p.x = 5; assert p.x == 5",
        "assert list(count(3)) == [0, 1, 2] and [*zip(count(9), 'ab')] == [(0, 'a'), (1, 'b')]",
        "assert apply(lambda x: x * 2, [1, 2]) == [2, 4] and apply(lambda x: x + 1, (1,), twice=True) == [3]",
        "assert apply(lambda x: echo(x) + 1, [1]) == [2]",
        "assert LIMIT == 7 and deep(500) == 500",
    ],
)  # fmt: skip
async def test_what_python_programs_do_can_be_tested(sandbox, test):
    assert await judged(UnitTests(f"def test_it():\n    {test}", sandbox=sandbox), HONEST) == (1.0, "")


async def test_every_plain_value_comes_back_as_it_is(sandbox):
    values = [
        True, 3, -(2**70), 1.5, "añ\ud800\n", b"\x00\xff", 1 + 2j, [1, [2]], (1, (2,)), {1, 2}, frozenset({1}),
        {(1, 2): [3], None: {"a": set()}}, bytearray(b"x"),
    ]  # fmt: skip
    tests = "import sys; sys.set_int_max_str_digits(0)\ndef test_values():\n    assert echo(None) is None\n"
    for value in values:
        tests += f"    assert echo({value!r}) == {value!r} and type(echo({value!r})) is {type(value).__name__}\n"
    tests += "    assert echo(float('inf')) == float('inf') and echo(float('nan')) != echo(float('nan'))\n"
    tests += "    assert echo(10 ** 5000) == 10 ** 5000\n"
    assert await judged(UnitTests(tests, sandbox=sandbox), HONEST) == (1.0, "")


async def test_errors_can_be_expected_by_their_own_class_or_by_pythons(sandbox):
    tests = """
def raised(kind, function, *args):
    try:
        function(*args)
    except kind as error:
        return str(error)
    return None

def test_errors():
    assert raised(EmptyError, Stack().pop) == raised(LookupError, Stack().pop) == "nothing left"
    assert raised(TypeError, deep, None) and raised(RecursionError, deep, 10 ** 6)
    assert raised(EOFError, noisy) is not None
"""
    assert await judged(UnitTests(tests, sandbox=sandbox), HONEST) == (1.0, "")


async def test_arguments_are_changed_in_place_only_if_that_is_what_is_tested(sandbox):
    code = "def order(items, seen):\n    items.sort(); seen['n'] = len(items)"
    tests = "def test_it():\n    x, d = [3, 1, 2], {}\n    order(x, d)\n    assert x == [1, 2, 3] and d == {'n': 3}"
    assert await judged(UnitTests(tests, sandbox=sandbox, in_place=True), code) == (1.0, "")
    assert (await judged(UnitTests(tests, sandbox=sandbox), code))[0] == 0.0


async def test_where_nothing_is_asserted_at_the_top_a_call_is_the_test(sandbox):
    tests = "def check(candidate):\n    assert candidate(2) == 4\ncheck(square)"
    verifier = UnitTests(tests, sandbox=sandbox)
    assert await judged(verifier, RIGHT) == (1.0, "")
    assert await judged(verifier, "def square(x): return x") == (0.0, "failed: call on line 3 (AssertionError)")


# Python tests: what fails, and what else fails with it.


async def test_a_large_value_comes_back_up_to_the_limit_of_output(sandbox):
    tests = "assert len(make(100)) == 100\nassert len(make(200_000)) == 200_000"
    code = "def make(n): return list(range(n))"
    assert await judged(UnitTests(tests, sandbox=short(sandbox, output=10 << 20)), code) == (1.0, "")
    assert (await judged(UnitTests(tests, sandbox=sandbox, partial=True), code))[0] == 0.5


async def test_a_value_too_deep_for_its_process_fails_its_test_alone(sandbox):
    tests = "assert back(make(300)) == make(300)\nassert back(make(5000))\nassert make(1) == [[]]"
    code = "def make(n):\n    x = []\n    for _ in range(n): x = [x]\n    return x\ndef back(x): return x"
    reward, critique = await judged(UnitTests(tests, sandbox=sandbox, partial=True), code)
    assert reward == pytest.approx(2 / 3)
    assert critique.endswith("failed: assert on line 2 (RecursionError)")


async def test_values_deeper_than_we_could_read_ourselves_pass_through(sandbox):
    deeper = "import sys; sys.setrecursionlimit(20_000)\n"
    code = deeper + "def make(n):\n    x = []\n    for _ in range(n): x = [x]\n    return x\ndef back(x): return x"
    tests = deeper + "assert len(back(make(1500))) == 1"
    assert await judged(UnitTests(tests, sandbox=sandbox), code) == (1.0, "")


async def test_a_test_that_ends_or_hangs_the_program_fails_alone(sandbox):
    tests = "def test_a(): assert f(0) == 0\ndef test_b(): f(1)\ndef test_c(): f(2)\ndef test_d(): assert f(3) == 3"
    code = "import os, time\ndef f(x):\n    if x == 1: os._exit(0)\n    if x == 2: time.sleep(99)\n    return x"
    assert await judged(UnitTests(tests, sandbox=short(sandbox, seconds=3.0), partial=True), code) == (
        0.5,
        "2 of 4 tests passed; failed: test_b (ended its process, or said too much), test_c (took too long)",
    )


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def f(:", "SyntaxError"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "ended its process"),
        ("import time; time.sleep(99)", "took too long"),
    ],
)
async def test_a_program_that_does_not_load_fails_everything_at_once(sandbox, monkeypatch, code, fault):
    starts = []
    start = Sandbox.start

    def counted(self, *programs):
        starts.append(1)
        return start(self, *programs)

    monkeypatch.setattr(Sandbox, "start", counted)
    reward, critique = await judged(UnitTests(SQUARE, sandbox=short(sandbox, seconds=3.0), partial=True), code)
    assert reward == 0.0
    assert critique.startswith("0 of 4 tests passed; failed: assert on line 3 (")
    assert fault in critique or (fault == "SystemExit" and "(Exception)" in critique)
    assert len(starts) == 1


async def test_what_stands_around_the_tests_fails_the_tests_that_follow(sandbox):
    tests = "assert f(1) == 1\ntable = [f(i) for i in range(3)]\nassert f(2) == 2"
    code = "def f(x):\n    if x == 0: raise ValueError\n    return x"
    assert await judged(UnitTests(tests, sandbox=sandbox, partial=True), code) == (
        0.5,
        "1 of 2 tests passed; failed: assert on line 3 (ValueError)",
    )


async def test_many_failures_are_told_in_few_words(sandbox):
    tests = "\n".join(f"assert f({i}) == 'secret'" for i in range(9))
    _, critique = await judged(UnitTests(tests, sandbox=sandbox, partial=True), "def f(x): return 'wrong'")
    assert critique.startswith("0 of 9 tests passed; failed: assert on line 1 (AssertionError), ")
    assert critique.endswith(" and 4 more")
    assert "secret" not in critique  # the right answer is not given away
    assert "wrong" not in critique  # nor has the candidate a word in it


# Python tests: what a dishonest candidate can do. `square` is never right in these.

FORGE = """
def square(x, forged={forged!r}):
    for descriptor in range(64):
        try:
            os.write(descriptor, forged)
        except OSError:
            pass
    return x
"""
DISHONEST = {
    "ends well": "import sys\ndef square(x): sys.exit(0)",
    "ends at once": "import os\ndef square(x): os._exit(0)",
    "says it passed": "def square(x): print('4 passed'); print('OK')",
    "stops the loop": "def square(x): raise StopIteration",
    "stops the loop by a class of its own": "class S(StopIteration): pass\ndef square(x): raise S",
    "interrupts": "def square(x): raise KeyboardInterrupt",
    "leaves": "def square(x): raise GeneratorExit",
    "raises something odd": "class E(BaseException):\n  def __str__(self): raise self\ndef square(x): raise E",
    "equals everything": """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __lt__ = __gt__ = __le__ = __ge__ = __contains__ = lambda self, other: True
    def __bool__(self): return True
    def __hash__(self): return 9
    def __sub__(self, other): return 0
    def __abs__(self): return 0
    def __float__(self): return 2.25
def square(x): return Any()
""",
    "is a number that equals everything": """
class N(int):
    def __eq__(self, other): return True
    def __hash__(self): return 9
def square(x): return N(7)
""",
    "has a better `all`": "def all(*a): return True\nisclose = all\ndef square(x): return 9",
    "has a better AssertionError": "class AssertionError(Exception): pass\ndef square(x): raise AssertionError",
    "changes its own Python": """
import ast, builtins, json, math, operator, sys
builtins.all = lambda *a: True
math.isclose = lambda *a: True
operator.eq = lambda *a: True
json.dumps = lambda *a: '{"result": true, "args": []}'
def square(x): return x
""",
    "changes the harness": """
import sys
main = sys.modules["__main__"]
main.Link.encode = lambda self, value: True
main.judge = main.tests_in = lambda *a: None
def square(x): return x
""",
    "searches for the tests": """
import gc, os, re, sys
def square(x):
    text = open(sys.modules["__main__"].__file__).read()
    text += repr([o for o in gc.get_objects() if isinstance(o, (str, dict, list))])
    found = re.search(r"square\\(%s\\) == (\\d+)" % x, text)
    return int(found[1]) if found else None
""",
    "kills": """
import os, signal
def square(x):
    for pid in (-1, 1, os.getppid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    return x
""",
    "forges a verdict": FORGE.format(forged=b'{"tell": ["passed", 0, ""]}\n' * 9),
    "forges an answer": FORGE.format(forged=b'{"result": 9, "args": []}\n'),
    "asks the tests' process": FORGE.format(forged=b'{"ask": "call", "args": [{"yours": 0}], "kwargs": {}}\n' * 9),
    "sends nonsense": FORGE.format(forged=b"[[[[[\n"),
    "sends what is too deep": FORGE.format(forged=b"[" * 100_000 + b"\n"),
    "sends what is too long": FORGE.format(forged=b"9" * 5_000_000 + b"\n"),
}


@pytest.mark.parametrize("code", DISHONEST.values(), ids=DISHONEST)
async def test_nothing_but_right_values_passes(sandbox, code):
    assert (await judged(UnitTests(SQUARE, sandbox=sandbox), code))[0] == 0.0
    assert (await judged(UnitTests(SQUARE, sandbox=sandbox, partial=True), code))[0] <= 0.25  # one lucky number


async def test_the_tests_words_keep_their_meaning(sandbox):
    tests = "def test_it():\n    assert all(n == 1 for n in [one()]) and len([one()]) == 1 and isinstance(one(), int)"
    code = "def all(*a): return True\nlen = isinstance = all\n__builtins__['all'] = all\ndef one(): return 2"
    assert (await judged(UnitTests(tests, sandbox=sandbox), code))[0] == 0.0


async def test_a_loop_over_the_candidates_results_does_not_end_early(sandbox):
    tests = (
        "def test_it():\n    for got, wanted in zip(map(square, [1, 2, 3]), [1, 4, 9]):\n        assert got == wanted"
    )
    code = "class Over(StopIteration): pass\ndef square(x):\n    if x > 1: raise Over\n    return x"
    assert (await judged(UnitTests(tests, sandbox=sandbox), code))[0] == 0.0


async def test_a_candidate_cannot_empty_what_it_is_compared_with(sandbox):
    code = "def order(items):\n    items.clear()\n    return []"
    tests = "def test_it():\n    items = [3, 1]\n    assert order(items) == sorted(items)"
    assert (await judged(UnitTests(tests, sandbox=sandbox), code))[0] == 0.0


async def test_a_function_of_the_tests_can_be_called_and_not_looked_into(sandbox):
    tests = "SECRET = 'abc'\ndef helper():\n    return 1\ndef test_it():\n    assert look(helper) == SECRET"
    code = """
import sys
Link = sys.modules["__main__"].Link
def look(function):
    link = function._link
    found = [function()]
    for ask in (
        lambda: link.ask("getattr", function, "__globals__")["SECRET"],
        lambda: function.__globals__["SECRET"],
        lambda: link.ask("load"),
        lambda: link.ask("call", function, "x"),
    ):
        try:
            found.append(ask())
        except Exception as error:
            found.append(type(error).__name__)
    return next((item for item in found if item == "abc"), found)
"""
    assert (await judged(UnitTests(tests, sandbox=sandbox), code))[0] == 0.0


# Which program.


def fenced(*blocks):
    return "\n".join(f"text\n```{language}\n{code}\n```\nmore" for language, code in blocks)


@pytest.mark.parametrize(
    ("steps", "answer", "code"),
    [
        ([fenced(("python", "a")), fenced(("python", "b"))], None, "b\n"),
        ([fenced(("python", "a"), ("", "b"), ("bash", "c"), ("json", "d"))], None, "b\n"),
        ([fenced(("python", "a"))], fenced(("py", "b")), "b\n"),
        ([fenced(("Python3", "a"))], "def f(): ...", "a\n"),
        (["no block"], "def f(): ...", "def f(): ..."),
        (["no block"], None, None),
        (["no block"], "  \n", None),
        (["```python\nx = 1\ny = 2"], None, "x = 1\ny = 2"),  # cut off
        (["1. So:\n   ```python\n   if x:\n       y\n   ```"], None, "if x:\n    y\n"),
        (["```python title=x\na = '```'\nb\n```"], None, "a = '```'\nb\n"),
    ],
)
def test_the_program_is_the_last_block_of_python(steps, answer, code):
    *before, last = steps
    assert code_of(State("q", (*map(Step, before), Step(last, True, answer)))) == code


async def test_no_program_is_no_success_and_an_unfinished_state_is_not_judged(sandbox, monkeypatch):
    monkeypatch.setattr(Sandbox, "start", lambda *_: pytest.fail("something was run"))
    states = [State("q"), State("q", (Step(f"```python\n{RIGHT}\n```"),)), State("q", (Step("no idea", True),))]
    scores = await UnitTests(SQUARE, sandbox=sandbox).score(states)
    assert [(score.rewards, score.critique) for score in scores] == [
        ((0.5,), "not finished"),
        ((0.5,), "not finished"),
        ((0.0,), "no program in the answer"),
    ]


# As a verifier.


async def test_it_keeps_the_laws_of_verifiers(sandbox):
    states = [finished(RIGHT), State("q"), finished("def square(x): return 9"), finished("print(1)")]
    await check_verifier(UnitTests(SQUARE, sandbox=sandbox, partial=True), states)


async def test_a_search_finds_the_program_that_passes(sandbox):
    programs = [f"def square(x):\n    return {body}" for body in ("x + x", "x ** 3", "x * x", "9")]
    answers = [(Step(f"```python\n{code}\n```", True, code),) for code in programs]
    gated = Gate(ScriptedVerifier({}, default=0.7), UnitTests(SQUARE, sandbox=sandbox))
    result = await search("Write square(x).", ScriptedPolicy({(): answers}), gated, BestOfN(n=4))
    assert (result.answer, result.confidence) == (programs[2], 0.7)
    assert result.verifier_usage == Usage(1)
    assert [node.critique for node in result.tree.nodes[1:3]] == ["failed: assert on line 3 (AssertionError)"] * 2


async def test_cancelling_ends_both_processes_and_frees_the_place(sandbox):
    one = Sandbox(LIMITS, parallel=1)
    one._found = sandbox._found
    verifier = UnitTests(SQUARE, sandbox=one)
    task = asyncio.create_task(judged(verifier, "while True: pass"))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await judged(verifier, RIGHT) == (1.0, "")


async def test_where_there_is_no_sandbox_nothing_gets_a_score(monkeypatch):
    monkeypatch.setattr(box.sys, "platform", "plan9")
    with pytest.raises(ConfigurationError, match=r"Sandbox\(trust=True\)"):
        await UnitTests(SQUARE).score([finished(RIGHT)])


@pytest.mark.parametrize("tests", [SQUARE, [("", "1")]])
async def test_a_sandbox_that_does_not_start_is_an_error_and_no_failed_test(monkeypatch, tests):
    sandbox = Sandbox(LIMITS)
    sandbox._found = "subprocess"
    monkeypatch.setattr(box, "_command", lambda *_: ["/bin/sh", "-c", "echo no room >&2; exit 1"])
    with pytest.raises(VerifierError, match="no room"):
        await UnitTests(tests, sandbox=sandbox).score([finished("print(1)")])


async def test_a_candidates_sandbox_that_does_not_start_is_an_error_and_no_failed_test(sandbox, monkeypatch):
    commands = []
    command = box._command

    def second_fails(*args):
        commands.append(command(*args))
        return commands[0] if len(commands) == 1 else ["/bin/sh", "-c", "echo no room >&2; exit 1"]

    monkeypatch.setattr(box, "_command", second_fails)
    with pytest.raises(VerifierError, match="no room"):
        await UnitTests(SQUARE, sandbox=short(sandbox)).score([finished(RIGHT)])


async def test_a_tests_process_that_ends_by_itself_is_an_error_and_no_failed_test(sandbox):
    with pytest.raises(VerifierError, match="ended before the first test"):
        await UnitTests("import os; os._exit(0)\nassert f()", sandbox=sandbox).score([finished("print(1)")])


async def test_tests_that_need_what_is_not_installed_are_a_wrong_configuration(sandbox):
    with pytest.raises(ConfigurationError, match="No module named 'nothing_of_that_name'"):
        await UnitTests("import nothing_of_that_name\nassert f()", sandbox=sandbox).score([finished("print(1)")])


async def test_a_candidate_cannot_make_the_tests_look_wrongly_configured(sandbox):
    tests = "table = f(1)\nassert f(1)"
    assert (await judged(UnitTests(tests, sandbox=sandbox), "def f(x): import nothing_of_that_name"))[0] == 0.0


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("def test_a(:", "cannot be run"),
        ("", "no tests"),
        ("def helper(): assert f()", "no tests"),
        ("class TestF:\n    def test_a(self): ...", "no tests"),
        ("async def test_a(): ...", "test_a must be a plain function"),
        ("def test_a(tmp_path): ...", "test_a must be a plain function"),
        ("def test_a(*, x): ...", "test_a must be a plain function"),
        ("def test_a():\n    for i in range(3):\n        yield i", "test_a must be a plain function"),
        ([], "no tests"),
    ],
)
def test_tests_that_would_test_nothing_are_refused(tests, why):
    with pytest.raises(ConfigurationError, match=why):
        UnitTests(tests)


def test_tests_are_found_in_the_order_in_which_they_run():
    source = "x = 1\ndef test_b(a=1, *, b=2): yields = lambda: (yield)\nassert x\ndef helper(): ...\ndef test_a(): ..."
    assert [name for name, _ in found_in(source)[1]] == ["assert on line 3", "test_b", "test_a"]


def test_its_identity_is_all_that_the_verdict_depends_on():
    same = UnitTests(SQUARE).identity
    assert UnitTests(SQUARE, sandbox=Sandbox(parallel=1)).identity == same
    others = [
        UnitTests(SQUARE + "assert 1"), UnitTests(SQUARE, partial=True), UnitTests(SQUARE, in_place=True),
        UnitTests(SQUARE, sandbox=Sandbox(Limits(seconds=1))), UnitTests(DOUBLE), UnitTests(DOUBLE[:1]),
    ]  # fmt: skip
    assert len({same, *(other.identity for other in others)}) == 7
    assert UnitTests(SQUARE).bound(State("q"), 4, 2) == Usage()

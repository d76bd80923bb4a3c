import io
import json
import math
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from o1_reason import MCTS, Step, Tree, search
from o1_reason.cli import app
from o1_reason.errors import ConfigurationError
from o1_reason.show import TreeView
from o1_reason.testing import RandomWorld, ScriptedPolicy, ScriptedVerifier
from o1_reason.view import flowchart, frame, read, render

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script></script><!-- \u2028 &lt; \" ' ]]> \ud800 {data}"


class Parsed(HTMLParser):
    """Tags with their attributes, and the texts of style, data and script."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self._in = [], {}, None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self._in = attrs.get("type", tag) if tag in ("script", "style") else None

    def handle_data(self, data):
        if self._in:
            self.texts[self._in] = self.texts.get(self._in, "") + data

    def handle_endtag(self, tag):
        self._in = None

    @property
    def data(self):
        return json.loads(self.texts["application/json"])


def grown(*steps, question="q"):
    """A tree of (parent, text, reward, answer); an answer makes the step a terminal one."""
    tree = Tree(question)
    for parent, text, reward, answer in steps:
        node, _ = tree.add(parent, Step(text, terminal=answer is not None, answer=answer, tokens=len(text)))
        node.reward = reward
    return tree


PLAIN = grown((0, "a", 0.5, None), (0, "b", 0.2, None), (1, "c", 0.9, "1"), (2, "d", 0.3, "2"))


@given(st.text(st.characters()), st.text(), st.floats(), st.sampled_from(["<", "&", "</script>", "<!--", "\u2029"]))
@example(EVIL, EVIL, math.nan, "x")
def test_any_text_comes_out_of_the_page_as_it_went_in_and_adds_no_tag(text, why, number, sign):
    tree = grown((0, text + sign, number, None), (1, sign + text, None, why), question=sign + text)
    tree.nodes[1].critique = why + sign
    tree.kill(tree.nodes[1], why)
    page = render(read(tree.to_data()))
    page.encode()
    found = Parsed(page)
    assert not set("<>&") & set(found.texts["application/json"]), "nothing that could end the script or begin a tag"
    assert found.texts["application/json"].isascii()
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in Parsed(render(read(PLAIN.to_data()))).tags]
    columns = found.data["columns"]
    assert columns["text"] == ["", text + sign, sign + text]
    assert (columns["answer"], columns["dead"]) == ([None, None, why], [None, why, None])
    assert (columns["critique"], found.data["question"]) == ([None, why + sign, None], sign + text)
    assert columns["reward"] == [None, number if math.isfinite(number) else None, None]


def test_the_page_may_run_its_own_script_and_style_and_nothing_else():
    found = Parsed(render(read(PLAIN.to_data())))
    policy = next(attrs["content"] for tag, attrs in found.tags if attrs.get("http-equiv"))
    style, script = (
        f"'sha256-{b64encode(sha256(found.texts[part].encode()).digest()).decode()}'" for part in ("style", "script")
    )
    assert policy == (
        f"default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'"
    )
    names = {name for _, attrs in found.tags for name in attrs}
    assert not [name for name in names if name in ("src", "href", "style") or name.startswith("on")]


def test_the_script_puts_nothing_into_the_page_but_text():
    script = files("o1_reason.view").joinpath("page.js").read_text("utf-8")
    assert (
        re.findall(r"HTML|eval|Function\(|document\.write|setAttribute|createContextual|\bfetch|import\(", script) == []
    )


async def test_the_page_holds_the_whole_search():
    world = RandomWorld(3, branch=3, depth=4)
    result = await search("q", world, world, MCTS(simulations=12))
    data = Parsed(result.tree.to_html(result.node)).data
    assert (data["chosen"], data["told"]) == (result.node, True)
    for name in ("parent", "reward", "visits", "value", "samples", "drawn", "dead", "critique"):
        assert data["columns"][name] == [getattr(node, name) for node in result.tree.nodes]
    for name in ("text", "terminal", "answer", "logprob", "tokens"):
        assert data["columns"][name][1:] == [getattr(node.step, name) for node in result.tree.nodes[1:]]


@pytest.mark.parametrize(
    ("steps", "best"),
    [
        ([(0, "a", 0.9, None)], None),
        ([(0, "a", 0.3, "1"), (0, "b", 0.4, "2"), (0, "c", 0.99, None)], 2),
        ([(0, "a", None, "1"), (0, "b", 0.0, "2")], 2),
        ([(0, "a", 0.4, "1"), (0, "b", 0.4, "2")], 1),
        ([(0, "a", 0.4, "1"), (0, "b", 0.4, "2"), (0, "b", 0.4, "2")], 2),
    ],
)
def test_without_a_choice_the_best_path_ends_in_the_best_reward_then_the_most_samples_then_the_oldest(steps, best):
    picture = read(grown(*steps).to_data())
    assert (picture.chosen, picture.told) == (best, False)


def test_a_dead_answer_is_not_the_best():
    tree = grown((0, "a", 0.9, "1"), (0, "b", 0.1, "2"))
    tree.kill(tree.nodes[1], "does not count")
    assert read(tree.to_data()).chosen == 2


def broken(**changes):
    data = PLAIN.to_data()
    data["nodes"][2].update(changes)
    return data


@pytest.mark.parametrize(
    "data",
    [
        None, [], 7, {}, {"tree": None}, {"question": "q", "nodes": []}, {"nodes": [{"parent": None}]},
        broken(parent=2), broken(parent=-1), broken(parent=None), broken(parent="0"), broken(step=None),
        broken(reward="0.5"), broken(critique=["x"]), broken(visits=10**400), {**PLAIN.to_data(), "node": 5},
        {**PLAIN.to_data(), "node": "1"},
    ],
)  # fmt: skip
def test_what_is_no_search_is_refused_with_the_reason(data):
    with pytest.raises(ConfigurationError, match=r"no search tree .*solve|is not in the tree"):
        read(data)


def test_a_notebook_shows_the_page_in_a_frame_that_reaches_nothing_around_it():
    shown = Parsed(PLAIN._repr_html_())
    ((tag, attrs),) = shown.tags
    assert (tag, attrs["sandbox"]) == ("iframe", "allow-scripts")
    assert attrs["srcdoc"] == PLAIN.to_html()
    assert "height:300px" in frame("", 300)


async def test_the_tree_drawn_from_data_is_the_one_drawn_while_searching():
    world = RandomWorld(5, branch=3, depth=4)
    live, later = TreeView(), TreeView()
    result = await search("q", world, world, MCTS(simulations=16), on_event=live.event)
    for event in read(result.tree.to_data()).events():
        later.event(event)
    silent = "  failed: no proposals"  # a dead end of which no event tells
    assert silent in drawn(later, result.node)
    assert drawn(later, result.node).replace(silent, "") == drawn(live, result.node)


def drawn(view, chosen):
    console = Console(width=100, file=io.StringIO())
    console.print(view.render(chosen))
    return console.file.getvalue()


def test_a_flowchart_has_the_best_path_in_bold_and_the_dead_ends_with_their_reason():
    tree = grown((0, "a", 0.5, None), (0, "b", None, None), (1, "c", 0.9, "1"), (0, "d", 0.1, None))
    tree.kill(tree.nodes[2], "no proposals")
    assert tree.to_mermaid().splitlines()[:9] == [
        "flowchart LR",
        '  n0["q"]:::best',
        '  n1["a<br/>0.50"]:::best',
        '  n2["b<br/>✕ no proposals"]:::dead',
        '  n3(["c<br/>0.90 ★"]):::best',
        '  n4["d<br/>0.10"]:::open',
        "  n0 ==> n1",
        "  n0 --> n2",
        "  n1 ==> n3",
    ]


@given(st.integers(0, 50), st.integers(1, 60))
def test_a_flowchart_leaves_out_the_youngest_and_counts_them(seed, limit):
    tree = Tree("q")
    for i in range(40):
        tree.add((seed * i) % (i + 1), Step(f"s{i}", terminal=False))
    tree.add(seed % 41, Step("end", terminal=True, answer="x"))
    chart = flowchart(read(tree.to_data()), limit)
    nodes = {int(i) for i in re.findall(r"^  n(\d+)[\[(]", chart, re.MULTILINE)}
    path = tree.path(41)
    assert len(nodes) == max(len(path), min(limit, len(tree)))
    assert set(path) <= nodes
    assert {tree.nodes[i].parent for i in nodes} - {None} <= nodes
    children = [i for i in range(len(tree)) if tree.nodes[i].parent in nodes and i not in nodes]
    assert sum(int(n) for n in re.findall(r'"(\d+) more"', chart)) == len(children)


@given(st.text())
@example('1. x"] --> y\nclick n0 "javascript:alert(1)"')
@example("- `#quot;` <b>")
@example(" ")
def test_a_flowchart_is_not_broken_by_any_text(text):
    chart = grown((0, text, 0.5, None)).to_mermaid()
    label = re.fullmatch(r'  n1\["(.+)<br/>0\.50"\]:::open', chart.split("\n")[2])
    assert label
    assert re.fullmatch(r"(#\d+;|[^\W_]|[ .,:+=()/?!…-])+", label[1])
    assert not re.match(r"[-+*]|\d+\.", label[1])


@pytest.fixture
def command(tmp_path):
    """`o1-reason view` on a file with a search."""
    file = tmp_path / "found.json"
    file.write_text(json.dumps({"node": 4, "answer": "2", "tree": PLAIN.to_data()}))

    def run(*arguments):
        result = CliRunner().invoke(app, ["view", str(file), *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return SimpleNamespace(code=result.exit_code, out=result.stdout, err=" ".join(result.stderr.split()), file=file)

    return run


def test_the_command_writes_the_page_beside_the_file_or_where_it_is_told(command, tmp_path):
    page = tmp_path / "found.html"
    assert command().out == f"wrote {page}\n"
    data = Parsed(page.read_text("utf-8")).data
    assert (data["chosen"], data["told"], data["answer"]) == (4, True, "2")
    other = tmp_path / "other.html"
    assert command("-o", str(other)).code == 0
    assert other.read_text("utf-8") == page.read_text("utf-8")


def test_the_command_prints_text_and_mermaid_and_then_writes_no_page(command, tmp_path):
    assert "d  0.30  ✓ answer" in command("--text").out
    assert '  n4(["d<br/>0.30 ★"]):::best' in command("--mermaid").out
    assert list(tmp_path.glob("*.html")) == []


def test_the_command_opens_the_page_if_told(command, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("typer.launch", opened.append)
    assert command("--open").code == 0
    assert opened == [(tmp_path / "found.html").as_uri()]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--text", "--mermaid"], "give one of them"),
        (["--text", "-o", "x.html"], "give one of them"),
        (["-o", "/nowhere/x.html"], "there is no folder /nowhere"),
    ],
)
def test_wrong_usage_is_exit_code_2(command, arguments, why):
    result = command(*arguments)
    assert (result.code, why in result.err) == (2, True)


def test_the_page_never_replaces_the_search(command):
    result = command("-o", str(command().file))
    assert (result.code, "would replace" in result.err) == (2, True)
    assert json.loads(result.file.read_text())["answer"] == "2"


@pytest.mark.parametrize("text", ["no JSON", '{"answer": "1"}', "\ud800"])
def test_a_file_that_holds_no_search_is_told(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    result = CliRunner().invoke(app, ["view", str(file)])
    assert (result.exit_code, "cannot do that" in result.stderr) == (2, True)


def test_solve_writes_the_page_as_well(installed, tmp_path):
    policy = ScriptedPolicy({(): ["think", "= 7"], ("think",): ["= 42"]})
    verifier = ScriptedVerifier({"= 42": 0.9, "= 7": 0.1, "think": 0.5})
    installed(fake=SimpleNamespace(policy=lambda _: policy, verifier=lambda _: verifier))
    page = tmp_path / "page.html"
    arguments = ["solve", "q", "--policy", "fake", "--verifier", "fake", "--json", "--view"]
    result = CliRunner().invoke(app, [*arguments, str(page)])
    assert (result.exit_code, json.loads(result.stdout)["answer"]) == (0, "42")
    data = Parsed(page.read_text("utf-8")).data
    assert (data["told"], data["confidence"], data["columns"]["text"][data["chosen"]]) == (True, 0.9, "= 42")
    calls = len(policy.calls)
    refused = CliRunner().invoke(app, [*arguments, str(tmp_path / "nowhere" / "page.html")])
    assert (refused.exit_code, "there is no folder" in " ".join(refused.stderr.split())) == (2, True)
    assert len(policy.calls) == calls, "refused before anything was paid for"

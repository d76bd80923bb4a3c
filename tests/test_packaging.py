"""The shape of the repository: layers, packages, public names, files that others load."""

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

import o1_reason

ROOT = Path(__file__).parent.parent
CORE = Path(o1_reason.__file__).parent

# Each line may import from the lines above it, and from its own only where listed.
LAYERS = [
    {"errors"},
    {"mdp"},
    {"answers", "chat", "limits", "loop", "receipt", "segment", "together", "view"},
    {"tree", "sandbox"},
    {"budget", "aggregate"},
    {"protocols"},
    {"strategies"},
    {"ledger", "resolve", "pool", "prices", "result", "chat_policy"},
    {"calls", "verifiers"},
    {"history"},
    {"engine"},
    {"asking", "driver", "parts", "settings"},
    {"context"},
    {"audit", "options"},
    {"learn"},
    {"messages"},
    {"graph", "testing", "show", "serve", "telling", "tool_steps", "tracing", "turns"},
    {"drawn", "structured", "tools", "mcp_tools"},
    {"middleware", "replying", "mcp_server"},
    {"chat_model"},
    {"servers"},
    {"cli"},
]
PACKAGES = {path.name for path in CORE.iterdir() if path.is_dir()}  # these may import from themselves
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}

checkout = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs the checkout")


def imports(path: Path) -> set[str]:
    """Modules that a file names in import statements, relative ones resolved against the core."""
    package = ("o1_reason", *path.relative_to(CORE).parent.parts) if path.is_relative_to(CORE) else ()
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            found.add(".".join(filter(None, (base, node.module))))
    return found


def core_files() -> list[Path]:
    return [path for path in CORE.rglob("*.py") if path.name != "__init__.py"]


def layer_of(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", core_files(), ids=lambda p: str(p.relative_to(CORE)))
def test_imports_run_strictly_downward(path: Path) -> None:
    mine = layer_of(path)
    for module in imports(path):
        if module.startswith("o1_reason."):
            other = module.split(".")[1]
            assert LEVEL[other] < LEVEL[mine] or other == mine in PACKAGES, f"{mine} imports {other}"


def test_strategies_do_not_import_each_other_in_a_circle() -> None:
    folder = CORE / "strategies"
    graph = {p.stem: {m.rsplit(".", 1)[1] for m in imports(p) if "strategies." in m} for p in folder.glob("*.py")}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", core_files(), ids=lambda p: str(p.relative_to(CORE)))
def test_langgraph_and_langchain_appear_from_the_graph_on(path: Path) -> None:
    if LEVEL[layer_of(path)] < LEVEL["messages"] or path.stem in ("testing", "show"):
        assert not [m for m in imports(path) if m.startswith(("langgraph", "langchain"))]


@pytest.mark.parametrize("path", core_files(), ids=lambda p: str(p.relative_to(CORE)))
def test_nothing_private_of_langgraph_and_no_adapter_is_imported_by_the_core(path: Path) -> None:
    for module in imports(path):
        assert "_internal" not in module
        assert not module.startswith(("o1_reason_", "adapters", "graphs"))


def test_importing_the_package_is_light() -> None:
    heavy = ("langgraph", "langchain_core", "numpy", "torch", "rich", "typer", "openai")
    code = f"import o1_reason, sys; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_public_names_are_sorted_complete_and_there() -> None:
    names = o1_reason.__all__
    assert len(set(names)) == len(names)
    for name in names:
        if name == "ReasoningMiddleware" and find_spec("langchain") is None:
            with pytest.raises(o1_reason.ConfigurationError, match=r"o1-reason\[agents\]"):
                o1_reason.ReasoningMiddleware  # noqa: B018
        else:
            assert getattr(o1_reason, name).__module__.startswith("o1_reason")


CONTRACT = {
    "Step": ("text", "terminal", "answer", "logprob", "tokens"),
    "State": ("question", "steps"),
    "Score": ("rewards", "critique", "usage"),
    "Proposals": ("candidates", "usage"),
    "Usage": ("calls", "prompt_tokens", "completion_tokens", "cost_usd"),
    "Budget": ("max_calls", "max_tokens", "max_seconds", "max_usd", "max_nodes", "concurrency"),
    "Result": (
        "answer", "text", "confidence", "stop", "usage", "policy_usage", "verifier_usage", "tree", "node", "ranking",
    ),
    "ChainOfThought": (),
    "SelfConsistency": ("n",),
    "BestOfN": ("n", "aggregate", "vote"),
    "BeamSearch": ("width", "branch", "max_depth", "aggregate"),
    "DepthFirst": ("branch", "threshold", "max_depth"),
    "DVTS": ("n", "branch"),
    "MCTS": ("simulations", "branch", "c_puct", "root"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRACT)
def test_public_fields_keep_their_names_and_order(name: str) -> None:
    fields = list(getattr(o1_reason, name).__dataclass_fields__)
    positions = [fields.index(field) for field in CONTRACT[name]]
    assert positions == sorted(positions)


def test_every_adapter_announces_itself_and_loads() -> None:
    for point in entry_points(group="o1_reason.adapters"):
        module = point.load()
        assert hasattr(module, "policy") or hasattr(module, "verifier")


@checkout
def test_every_folder_under_adapters_is_packaged_typed_and_announced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    announced = set(project["project"]["entry-points"]["o1_reason.adapters"].values())
    for folder in (ROOT / "adapters").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert f"adapters/{folder.name}" in packages
            assert folder.name in announced
            assert (folder / "py.typed").exists()


@checkout
async def test_langgraph_json_names_graphs_that_load_without_key_or_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config = json.loads((ROOT / "langgraph.json").read_text())
    assert config["graphs"]
    for name, target in config["graphs"].items():
        path, attribute = target.split(":")
        spec = importlib.util.spec_from_file_location(f"deployed_{name}", ROOT / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        graph = getattr(module, attribute)
        assert graph.name == name
        assert graph.checkpointer is None, "the server brings its own"
        out = await graph.ainvoke({"messages": [("user", "1 2 3 4")]})
        assert out["messages"][-1].type == "ai"
        assert "1 * 2 * 3 * 4" in out["messages"][-1].text


@checkout
def test_no_file_is_longer_than_a_reader_bears() -> None:
    for path in [*CORE.rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 500, path

"""What README, docs and examples say is true now: every snippet runs."""

import ast
import asyncio
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(language: str) -> list[object]:
    found: list[object] = []
    for page in PAGES:
        for block in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            line = page.read_text()[: block.start()].count("\n") + 1
            found.append(pytest.param(block[1], id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize("code", snippets("python"))
def test_python_snippet_runs(code: str) -> None:
    program = compile(code, "snippet", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {"__name__": "snippet"}
    outcome = eval(program, names)
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


def commands() -> list[object]:
    return [
        pytest.param(line, id=line)
        for block in snippets("sh")
        for line in block.values[0].splitlines()  # type: ignore[attr-defined]
        if line.strip() and not line.startswith("#")
    ]


@pytest.mark.parametrize("line", commands())
def test_shell_snippet_runs(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:.*##", makefile, re.MULTILINE) for target in words[1:])
    elif words[0] == "pip":
        assert words[1] == "install"
    elif words[:2] == ["python", "-m"] or words[0] == "python":
        if "train" in words[2]:
            pytest.importorskip("torch", reason="training needs PyTorch: pip install 'o1-reason[train]'")
        help_of = words[1:3] if words[1] == "-m" else words[1:2]
        known = subprocess.run([sys.executable, *help_of, "--help"], capture_output=True, text=True, cwd=ROOT)
        assert known.returncode == 0, known.stderr
        assert all(word.split("=")[0] in known.stdout for word in words if word.startswith("--"))
    else:
        assert words[0] == "o1-reason"
        ran = subprocess.run([sys.executable, "-m", "o1_reason.cli", *words[1:]], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_example_is_short_and_runs(example: Path) -> None:
    assert len(example.read_text().splitlines()) <= 60
    ran = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_every_example_and_page_is_reachable_from_the_readme() -> None:
    text = "".join(page.read_text() for page in PAGES)
    for path in [*(ROOT / "examples").glob("*.py"), *(ROOT / "docs").glob("*.md")]:
        assert path.name in text, f"nothing links to {path.name}"

"""The embedded models behind real servers: as accurate as in process, paid as counted, prefixes computed once.

    make test-vllm test-llamacpp        set the servers up
    python benchmarks/served.py         transformers serve, and vLLM and llama.cpp where they are set up
    python benchmarks/served.py --quick 20 puzzles instead of 100

Best of 8 and beam search by the reward model on the test puzzles (ranks 901-1000). Over HTTP steps are drawn
independently; in process the embedded policy draws different ones, so beam search is given there both ways.
"""

import asyncio
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _report import Report, parse_quick
from o1_reason_embedded import EmbeddedPolicy, EmbeddedVerifier
from o1_reason_embedded.export import Format, export
from o1_reason_embedded.puzzle import parse, solves

from o1_reason import BeamSearch, BestOfN, Proposals, State, Usage, search

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from integration import servers
from integration.puzzles import TEST
from integration.test_policy_over_http import computed_per_token, over_http, question

COUNTING = {"llama.cpp": "llama_server", "vLLM": "vllm_policy"}  # these tell what they have computed


class Independent(EmbeddedPolicy):
    """The embedded policy with steps drawn as a server draws them: independently, nothing barred."""

    async def propose(
        self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None, seed: int | None = None
    ) -> Proposals:
        if max_steps > 1:
            return await super().propose(state, n, max_steps, temperature=temperature, seed=seed)
        drawn = [
            await super(Independent, self).propose(state, 1, 1, temperature=temperature, seed=(seed or 0) + i)
            for i in range(n)
        ]
        usage = sum((proposals.usage for proposals in drawn), Usage())
        return Proposals(tuple(c for proposals in drawn for c in proposals.candidates), usage)


async def measure(policy: Any, count: int) -> list[str]:
    """Right answers of 100 and generated tokens a puzzle, for both strategies, and seconds a puzzle."""
    cells: list[str] = []
    started = time.monotonic()
    for strategy in (BestOfN(8), BeamSearch(4, 4)):
        right = tokens = 0
        for seed, numbers in enumerate(TEST[:count]):
            result = await search(question(numbers), policy, EmbeddedVerifier(), strategy, seed=seed)
            right += solves(parse(question(numbers)), result.answer or "")
            tokens += result.policy_usage.completion_tokens
        cells += [f"{100 * right / count:.0f}", f"{tokens / count:.0f}"]
    return [*cells, f"{(time.monotonic() - started) / (2 * count):.2f}"]


async def main(quick: bool) -> None:
    report = Report()
    count = 20 if quick else 100
    rows: list[list[str]] = []
    reuse: list[list[str]] = []
    for name, policy in (("in process", EmbeddedPolicy()), ("in process, independent", Independent())):
        rows.append([name, *await measure(policy, count)])
    here = float(rows[1][1]) / 100
    with tempfile.TemporaryDirectory() as folder:
        for name, start in _servers(Path(folder)).items():
            with start as url:
                policy = over_http(url)
                rows.append([name, *await measure(policy, count)])
                there = float(rows[-1][1]) / 100
                p = (here + there) / 2
                error = math.sqrt(2 * p * (1 - p) / count)
                report.promise(abs(there - here) <= 3 * error, f"{name}: best of 8 as in process (3 standard errors)")
                if name in COUNTING:
                    ratio = await computed_per_token(url, COUNTING[name])
                    reuse.append([name, f"{ratio:.2f}"])
                    report.promise(ratio <= 1.1, f"{name}: each token of the tree computed about once")
    columns = ["policy", "best of 8, %", "tokens", "beam, %", "tokens", "s / search"]
    report.table(f"{count} puzzles, reward model in process", columns, rows)
    report.table("Prefix caches", ["server", "prompt tokens computed / tokens of the tree"], reuse)
    report.exit()


def _servers(folder: Path) -> dict[str, Any]:
    """Those that are set up, not yet started."""
    found: dict[str, Any] = {}
    export(Format.hf, folder / "hf" / servers.MODEL)
    found["transformers serve"] = servers.transformers_server(folder / "hf")
    if servers.LLAMA_SERVER.exists():
        export(Format.gguf, folder / "gguf")
        found["llama.cpp"] = servers.llama_cpp_server(folder / "gguf")
    if (servers.VLLM / "ready").exists():
        model = folder / "hf" / servers.MODEL
        found["vLLM"] = servers.vllm_server(model, "--enable-prompt-tokens-details")
    return found


if __name__ == "__main__":
    asyncio.run(main(parse_quick(__doc__)))

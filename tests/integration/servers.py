"""Real servers on this machine with the exported embedded models: each started in a process group of its own, awaited,
and ended with everything it has started, also when the test run itself is killed."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from o1_reason_embedded import vocab

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".venv-vllm"
LLAMA_SERVER = ROOT / ".llamacpp" / "llama-server"
CONTEXT = 2048  # tokens: more than the model was trained on, for tests of prefix caches
MODEL = "embedded"  # the model's name on every server

# Once the server ends, or our end of the pipe closes because we close it or are dead, all of its group is ended.
_SUPERVISE = 'trap : TERM; ("$@"; kill 0) & cat >/dev/null; kill 0; sleep 2; kill -9 0'


@contextmanager
def running(
    command: Sequence[str | Path], port: int, folder: Path, seconds: float, env: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The base URL of the server that `command` starts in `folder`, once it is healthy; fails after `seconds`."""
    log = folder / f"{Path(command[0]).name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", _SUPERVISE, "sh", *map(str, command)],
            cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(env or {})},
            stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _await_health(process, port, seconds, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def _await_health(process: subprocess.Popen[bytes], port: int, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.1)
    what = f"is not healthy after {seconds:g} seconds" if process.poll() is None else "ended before it was healthy"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
    pytest.fail(f"the server {what}; the end of {log}:\n{tail}", pytrace=False)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextmanager
def transformers_server(folder: Path) -> Iterator[str]:
    """`transformers serve` of the model in ``folder/embedded``; it names a model by its path, here relative."""
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", MODEL, "--device", "cpu"]
    with running([*command, "--host", "127.0.0.1", "--port", str(port)], port, folder, 110) as url:
        yield url


@contextmanager
def vllm_server(folder: Path, *flags: str) -> Iterator[str]:
    """vLLM on the CPU; `folder` is the model's. Blocks of 32 tokens, the smallest it has on a CPU, instead of 128."""
    if not (VLLM / "ready").exists():
        pytest.fail(f"{VLLM} is not set up: run make test-vllm, or sh scripts/setup-vllm.sh .venv-vllm", pytrace=False)
    port = free_port()
    command = [VLLM / "bin" / "python", "-m", "vllm.entrypoints.openai.api_server", "--model", folder]
    options = {
        "--host": "127.0.0.1", "--port": str(port), "--served-model-name": MODEL, "--dtype": "float32",
        "--max-num-seqs": "64", "--block-size": "32", "--max-model-len": str(CONTEXT),
        "--hf-overrides": f'{{"max_position_embeddings": {CONTEXT}}}',
    }  # fmt: skip
    env = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1",
        "TORCHDYNAMO_DISABLE": "1",  # else the first request for log-probabilities compiles for 20 seconds
    }  # fmt: skip
    given = [word for option in options.items() for word in option]
    with running([*command, *given, "--enforce-eager", *flags], port, folder, 500, env) as url:
        yield url


def pooling_flags() -> tuple[str, ...]:
    """For a reward at the end of each step."""
    return ("--runner", "pooling", "--pooler-config", f'{{"pooling_type": "STEP", "step_tag_id": {vocab.CLOSE}}}')


@contextmanager
def llama_cpp_server(folder: Path) -> Iterator[str]:
    """llama.cpp's server: plain sampling, where its own defaults cut unlikely tokens off, and float32 throughout."""
    if not LLAMA_SERVER.exists():
        hint = "run make test-llamacpp, or sh scripts/setup-llamacpp.sh .llamacpp"
        pytest.fail(f"{LLAMA_SERVER} is not built: {hint}", pytrace=False)
    port = free_port()
    options = {
        "--model": folder / "model.gguf", "--host": "127.0.0.1", "--port": port, "--alias": MODEL, "--threads": 1,
        "--parallel": 16, "--ctx-size": 16 * CONTEXT,
        "--override-kv": f"llama.context_length=int:{CONTEXT}",
        "--flash-attn": "off", "--cache-type-k": "f32", "--cache-type-v": "f32",
        "--temp": 1, "--top-k": 0, "--top-p": 1, "--min-p": 0,
    }  # fmt: skip
    given = [str(word) for option in options.items() for word in option]
    with running([LLAMA_SERVER, *given, "--metrics", "--offline", "--no-ui"], port, folder, 60) as url:
        yield url

"""Servers for the tests, each started once, when the first test asks for it: `transformers_serve`, `vllm_policy`,
`vllm_prm`, `llama_server`, and `policy_server`, which is each of the three policies in turn. All are base URLs, and
`servers.MODEL` is the model's name on all of them."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from integration import servers
from o1_reason_embedded.export import Format, export


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("vllm"):
            item.add_marker(pytest.mark.timeout(600))  # it may have to start the server


def _exported(format: Format, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(format.value) / servers.MODEL
    export(format, folder)
    return folder


@pytest.fixture(scope="session")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    missing = [name for name in ("torch", "transformers", "accelerate", "fastapi", "uvicorn") if not find_spec(name)]
    if missing:
        pytest.skip(f"transformers serve needs {', '.join(missing)}: pip install torch 'transformers[serving]'")
    with servers.transformers_server(_exported(Format.hf, tmp_path_factory).parent) as url:
        yield url


@pytest.fixture(scope="session")
def vllm_policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.vllm_server(_exported(Format.hf, tmp_path_factory), "--enable-prompt-tokens-details") as url:
        yield url


@pytest.fixture(scope="session")
def vllm_prm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.vllm_server(_exported(Format.hf_prm, tmp_path_factory), *servers.pooling_flags()) as url:
        yield url


@pytest.fixture(scope="session")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.llama_cpp_server(_exported(Format.gguf, tmp_path_factory)) as url:
        yield url


@pytest.fixture(
    scope="session",
    params=[
        "transformers_serve",
        pytest.param("vllm_policy", marks=pytest.mark.vllm),
        pytest.param("llama_server", marks=pytest.mark.llamacpp),
    ],
)
def policy_server(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)

"""`o1-reason serve` as a process of its own, and the clients that people use: `openai` and `ChatOpenAI`."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from o1_reason import BeamSearch, Budget, search

MODEL = "reasoner/embedded"
KEY = "a-key-for-tests"
QUESTION = "4 5 6 10"
ANSWER = "4 + 5 * 6 - 10"  # of the embedded reasoner, seed 0
HARD = {"strategy": "mcts", "options": {"simulations": 4000}, "budget": {"max_seconds": 3}}


class Process:
    """The server under `url`; `log` grows as it speaks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self.url = ""
        self._ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._ready.wait(30), "".join(self.log)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            running = re.search(r"running on (http://\S+)", line)
            if running:
                self.url = running[1]
                self._ready.set()

    def gauge(self, name: str, key: str = KEY) -> float:
        asked = urllib.request.Request(f"{self.url}/metrics", headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(asked, timeout=5) as page:
            found = re.search(rf"^{name} (\S+)$", page.read().decode(), re.MULTILINE)
        assert found is not None
        return float(found[1])

    def until(self, name: str, value: float, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.gauge(name) != value:
            assert time.monotonic() < deadline, f"{name} is not {value} after {seconds} seconds"
            time.sleep(0.02)


@contextmanager
def running(*arguments: str) -> Iterator[Process]:
    command = [sys.executable, "-m", "o1_reason.cli", "serve", "--port", "0", "--api-key", KEY, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Process(process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with running() as process:
        yield process


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], **fields}


@pytest.fixture
def client(server: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def reasoning(part: Any) -> str:
    return getattr(part, "reasoning_content", None) or ""


def test_the_openai_client_lists_models_and_gets_an_answer_with_its_reasoning(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    reply = client.chat.completions.create(**ask())
    message = reply.choices[0].message
    assert message.content == ANSWER
    assert len(reasoning(message).splitlines()) == 3
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details is not None
    assert 0 < (reply.usage.completion_tokens_details.reasoning_tokens or 0) <= reply.usage.completion_tokens
    assert reply._request_id == reply.id


def test_the_openai_client_streams_the_reasoning_and_then_the_answer(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**ask(), stream=True, stream_options={"include_usage": True}))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    order = ["reasoning" if reasoning(delta) else "content" for delta in deltas if reasoning(delta) or delta.content]
    assert order.index("content") == len(order) - 1
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens > 0


def test_the_openai_client_reads_a_stream_by_its_helper_too(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**ask()) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == ANSWER


async def test_the_async_openai_client_changes_strategy_and_budget(server: Process) -> None:
    wish = {"reasoner": {"strategy": "best_of_n", "budget": {"max_calls": 3}}}
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        reply = await client.chat.completions.create(**ask(), seed=3, extra_body=wish)
    same = await search(QUESTION, "embedded", "embedded:prm+rules", "best_of_n", Budget(max_calls=3), seed=3)
    assert reply.choices[0].message.content == same.answer
    assert reply.model_extra is not None
    assert reply.model_extra["reasoner"]["confidence"] == same.confidence


def test_errors_are_those_of_the_openai_client(server: Process, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'o1' here"):
        client.chat.completions.create(**{**ask(), "model": "o1"})
    with pytest.raises(openai.BadRequestError, match="the search calls no tools") as refused:
        client.chat.completions.create(**ask(tools=[{"type": "function", "function": {"name": "f"}}]))
    assert refused.value.param == "tools"
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="arithmetic puzzles only"):
            client.chat.completions.create(**ask(messages=[{"role": "user", "content": "Who?"}], stream=stream))
    with pytest.raises(openai.AuthenticationError, match="a valid API key"):
        client.with_options(api_key="wrong").chat.completions.create(**ask())
    with pytest.raises(openai.NotFoundError, match="try POST /v1/chat/completions"):
        client.embeddings.create(model=MODEL, input=QUESTION)


def test_the_openai_client_gets_a_response_too_whole_and_streamed(client: openai.OpenAI) -> None:
    assert client.responses.create(model=MODEL, input=QUESTION).output_text == ANSWER
    with client.responses.stream(model=MODEL, input=QUESTION) as stream:
        assert stream.get_final_response().output_text == ANSWER


async def test_chat_openai_invokes_and_streams_and_sets_the_effort(server: Process) -> None:
    chat = ChatOpenAI(model=MODEL, base_url=f"{server.url}/v1", api_key=SecretStr(KEY), reasoning_effort="high")
    reply = chat.invoke([("system", "You are terse."), ("user", QUESTION)])
    same = await search(QUESTION, "embedded", "embedded:prm+rules", BeamSearch(width=8))
    usage = reply.usage_metadata
    assert usage is not None
    assert (reply.text, usage["total_tokens"]) == (same.answer, same.usage.tokens)
    assert usage.get("output_token_details", {}).get("reasoning") == same.policy_usage.completion_tokens
    whole: Any = None
    for chunk in chat.stream(QUESTION, stream_usage=True):
        whole = chunk if whole is None else whole + chunk
    assert (whole.text, whole.usage_metadata["total_tokens"]) == (same.answer, same.usage.tokens)
    chat.root_client.close()


async def test_chat_openai_works_asynchronously_in_a_chain(server: Process) -> None:
    chat = ChatOpenAI(model=MODEL, base_url=f"{server.url}/v1", api_key=SecretStr(KEY))
    chain = ChatPromptTemplate.from_messages([("user", "Make 24 from {numbers}")]) | chat | StrOutputParser()
    assert await chain.ainvoke({"numbers": "4, 5, 6 and 10"}) == ANSWER
    assert "".join([part async for part in chain.astream({"numbers": "4, 5, 6 and 10"})]) == ANSWER
    await chat.root_async_client.close()


def test_a_stream_that_is_closed_ends_its_search(server: Process, client: openai.OpenAI) -> None:
    with client.chat.completions.create(**ask(), stream=True, extra_body={"reasoner": HARD}) as stream:
        while not reasoning(next(stream).choices[0].delta):
            pass
        assert server.gauge("o1_reason_searches_running") == 1
    server.until("o1_reason_searches_running", 0, 1.0)


def test_sigterm_lets_a_running_search_end_and_takes_no_other() -> None:
    with running("--grace", "20") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
        found: list[str] = []
        with client.chat.completions.create(**ask(), stream=True, extra_body={"reasoner": HARD}) as stream:
            while not reasoning(next(stream).choices[0].delta):
                pass
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            late = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
            with late, pytest.raises(openai.APIConnectionError):
                late.models.list()
            found.extend(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
        client.close()
        assert "".join(found), "and the stream had its end: no error was raised"
        assert server.process.wait(10) in (0, -signal.SIGTERM)
    assert "Traceback" not in "".join(server.log)


def test_sigterm_cuts_off_what_outlasts_the_grace_period() -> None:
    with running("--grace", "0.2") as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
        wish = {**HARD, "budget": {"max_seconds": 100}}
        with client.chat.completions.create(**ask(), stream=True, extra_body={"reasoner": wish}) as stream:
            next(stream)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(openai.APIError, match="the server is shutting down"):
                for _ in stream:
                    pass
        client.close()
        assert server.process.wait(10) in (0, -signal.SIGTERM)


def test_models_of_a_file_are_served_to_whoever_has_a_key(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[reasoner.vote]\npolicy = "embedded"\nverifier = "none"\noptions = {n = 4}\n')
    with running("--models", str(path), "--host", "0.0.0.0") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
            reply = client.chat.completions.create(**{**ask(), "model": "reasoner/vote"})
        assert reply.model_extra is not None
        assert reply.model_extra["reasoner"]["verifier"]["calls"] == 0
        with urllib.request.urlopen(f"{url}/health", timeout=5) as health:
            assert json.load(health)["status"] == "ok"

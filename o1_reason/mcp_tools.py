"""What the MCP server's tools take and give, in JSON schema and in words."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import mcp_types as types
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .engine import Event
from .errors import ConfigurationError
from .result import Result
from .serve.desk import BusyError, ClosingError, Job
from .serve.models import EFFORTS, Model, strategy_for
from .settings import within
from .strategies import STRATEGIES


class Asked(BaseModel):
    """Arguments of the tool `reason`. Limits narrow those of the server, and never widen them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    question: str = Field(description="The question in full; nothing else of the conversation is seen.")
    context: str | None = Field(None, description="Text and facts that the question refers to.")
    strategy: str | None = Field(
        None,
        description="How to search; left out, the server's choice, which is a good one.",
        json_schema_extra={"enum": [*STRATEGIES, None]},
    )
    effort: str | None = Field(
        None,
        description="How wide to search, as a multiple of the server's choice: minimal 1/4, low 1/2, medium 1, high 2, "
        "xhigh 4.",
        json_schema_extra={"enum": [*EFFORTS, None]},
    )
    max_seconds: float | None = Field(None, ge=0, description="After that long, the best answer so far.")
    max_tokens: int | None = Field(None, ge=0, description="Most tokens, those that are read included.")
    max_calls: int | None = Field(None, ge=0, description="Most model calls.")
    max_usd: float | None = Field(None, ge=0, description="Most dollars.")
    max_nodes: int | None = Field(None, ge=0, description="Most steps tried.")

    def job(self, model: Model, seed: int) -> Job:
        """Raises ConfigurationError for what cannot be."""
        if not self.question.strip():
            raise ConfigurationError("the question is empty; state it in full")
        limits = {name: limit for name, limit in self if name.startswith("max_") and limit is not None}
        context = ({"role": "user", "content": self.context},) if self.context else ()
        strategy = strategy_for(model, self.strategy, {}, self.effort)
        return Job(model, self.question, context, strategy, within(model.budget, limits), seed)


class Look(BaseModel):
    """Arguments of the tool `show_search`."""

    model_config = ConfigDict(extra="forbid")

    search: str = Field(description="The field search of an answer of the tool reason.")
    limit: int = Field(40, ge=2, le=400, description="Most steps that are drawn.")


class Ranked(BaseModel):
    answer: str
    score: float


class Spent(BaseModel):
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None = Field(description="Dollars; null where nobody knows a price.")


class Found(BaseModel):
    """Structured content of an answer."""

    answer: str | None = Field(description="null: none was found.")
    confidence: float | None = Field(description="In [0, 1]; 0: the verifier rules the answer out. null: unknown.")
    stop: str = Field(description="done, exhausted, budget or deadline.")
    reasoning: str = Field(description="The chosen reasoning, whole.")
    ranking: list[Ranked] = Field(description="Distinct answers, best first.")
    usage: Spent = Field(description="Of policy and verifier together.")
    steps: int = Field(description="Steps tried.")
    search: str = Field(description="For show_search.")

    @classmethod
    def data(cls, result: Result, search: str) -> dict[str, Any]:
        """In plain JSON types."""
        found = cls(
            answer=result.answer, confidence=result.confidence, stop=result.stop, reasoning=result.text,
            ranking=[Ranked(answer=answer, score=score) for answer, score in result.ranking],
            usage=Spent(**result.usage.to_data()), steps=len(result.tree) - 1, search=search,
        )  # fmt: skip
        return json.loads(utf8(json.dumps(found.model_dump(), ensure_ascii=False)))


TOOLS = [
    types.Tool(
        name="reason",
        title="Think hard about one question",
        description="Searches for the answer to one question that needs several steps and has a definite answer. "
        "Several ways of reasoning are tried, each step is scored, and the best answer comes back with a confidence "
        "between 0 and 1. State the question in full: nothing else of the conversation is seen.",
        input_schema=Asked.model_json_schema(),
        output_schema=Found.model_json_schema(),
        annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
    ),
    types.Tool(
        name="show_search",
        title="Show how an answer was found",
        description="The search tree behind an answer of the tool reason, as a Mermaid flowchart: steps, scores, dead "
        "ends, and the path that was chosen.",
        input_schema=Look.model_json_schema(),
        annotations=types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    ),
]
PAGES = types.ResourceTemplate(
    name="search", title="A search as a page", uri_template="search://{search}", mime_type="text/html",
    description="One self-contained page to explore the tree of a search in.",
)  # fmt: skip


# In words.


class Progress:
    """Where a search stands, in a line."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._ends: dict[int, str] = {}
        self._best: tuple[float, str] | None = None

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            kind = event["event"]
            self._counts[kind] += 1
            if kind == "created" and event["terminal"]:
                self._ends[event["node"]] = event["answer"] or event["text"]
            elif kind == "scored" and event["node"] in self._ends:
                better = self._best is None or event["reward"] > self._best[0]
                self._best = (event["reward"], self._ends[event["node"]]) if better else self._best

    @property
    def done(self) -> int:
        """Grows with everything that happens."""
        return self._counts.total()

    def __str__(self) -> str:
        line = f"{self._counts['created']} steps, {self._counts['scored']} scored"
        if self._counts["failed"]:
            line += f", {self._counts['failed']} failed"
        return line if self._best is None else utf8(f"{line}, best {self._best[0]:.2f}: {self._best[1][:200]}")


def said(result: Result) -> str:
    """What the model reads."""
    if result.answer is None:
        return f"No answer was found ({result.stop}). Ask a smaller question, or allow more with effort or limits."
    if not result.answered:
        return f"No answer passed the check; the best attempt was {result.answer}"
    sure = "" if result.confidence is None else f" (confidence {result.confidence:.2f})"
    return f"{result.answer}{sure}\n\n{result.text}"


def advice(error: Exception) -> str:
    """What was wrong with a call, and what to do next."""
    match error:
        case ValidationError():
            return "; ".join(_complaint(each) for each in error.errors())
        case ConfigurationError(__cause__=None):  # with a cause, a model's server has refused this one
            return f"{str(error).rstrip('.')}. Ask in another way, or go on without this tool."
        case ClosingError():
            return "The server is shutting down; go on without this tool."
        case BusyError():
            return str(error)
    return f"The search failed: {error}. It has tried again as often as it may; go on without this tool."


def _complaint(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"there is no argument {where}; leave it out"
    return f"{where}: {error['msg']}"


def text(text: str) -> types.TextContent:
    return types.TextContent(text=utf8(text))


def utf8(text: str) -> str:
    """Without lone surrogates, which models may write and which are no JSON in UTF-8."""
    return text.encode(errors="replace").decode()

"""Reasoning as a Markov decision process (Jun Wang, "A Tutorial on LLM Reasoning", section 3).

State s_t = (Q, R_1 .. R_t-1): the question and the steps so far. Action a_t: the next step, or the final answer.
Transition: s_t+1 = s_t + a_t, deterministic. The policy pi(a|s) proposes, the verifier's r(s, a) scores.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """What model calls cost; adds up with ``+``. `cost_usd` is None where nobody knows a price."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None

    @property
    def tokens(self) -> int:
        """Prompt plus completion tokens."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        cost = self.cost_usd
        if other.cost_usd is not None:
            cost = other.cost_usd + (cost or 0.0)
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            cost,
        )

    def to_data(self) -> dict[str, Any]:
        """Plain JSON types; `Usage(**data)` is the inverse."""
        return {
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost_usd": self.cost_usd,
        }


NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a step makes."""

    name: str
    arguments: str  # a JSON object
    id: str = ""
    result: str | None = None  # what the tool said; None: it has not run


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of reasoning, or the final answer."""

    text: str  # the action, verbatim
    terminal: bool = False  # nothing follows; carries the answer
    answer: str | None = None  # extracted final answer of a terminal step
    logprob: float | None = None  # mean token log-probability, nats
    tokens: int = 0  # completion tokens paid for this step
    key: str | None = None  # answers with equal keys are one answer; None: `answers.canonical(answer)`
    calls: tuple[ToolCall, ...] = ()  # `text` tells of them and of their results, too

    @property
    def pending(self) -> bool:
        """It calls a tool that has not run: one with effects, which only runs once the step is chosen."""
        return any(call.result is None for call in self.calls)


@dataclass(frozen=True, slots=True)
class State:
    """Question and steps so far; ``state + step`` is the transition.

    `context` holds the messages before the question, oldest first, as ``{"role": ..., "content": ...}``.
    """

    question: str
    steps: tuple[Step, ...] = ()
    context: tuple[dict[str, Any], ...] = field(default=(), hash=False)

    def __add__(self, step: Step) -> "State":
        return State(self.question, (*self.steps, step), self.context)

    @property
    def text(self) -> str:
        """The steps, one per line."""
        return "\n".join(step.text for step in self.steps)


@dataclass(frozen=True, slots=True)
class Score:
    """A verifier's judgement of one state.

    `rewards` are in [0, 1]: one per step of the state, oldest first (process reward), or exactly one for the
    state as a whole (outcome reward, critic).
    """

    rewards: tuple[float, ...]
    critique: str | None = None
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Proposals:
    """A policy's answer: up to n continuations of a state, each of one step or more."""

    candidates: tuple[tuple[Step, ...], ...]
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Expansion:
    """A strategy's order: sample `n` continuations of up to `max_steps` steps from `node`.

    `temperature` None is the policy's own setting, 0 is greedy.
    """

    node: int
    n: int = 1
    max_steps: int = 1
    temperature: float | None = None

"""From a question to a chat reasoner to the message that answers it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage

from .budget import Budget
from .chat import find_stop
from .driver import search
from .engine import Event
from .errors import PolicyError, VerifierError
from .mdp import NOTHING
from .messages import answered, not_found, usage_data
from .protocols import Policy, Strategy, Verifier
from .result import Result
from .structured import in_form, with_room
from .turns import TurnPolicy, turn_of


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a chat reasoner, and how it is to be answered."""

    text: str
    context: tuple[dict[str, Any], ...]
    policy: Policy
    verifier: Verifier | None
    strategy: Strategy
    budget: Budget
    seed: int
    ledger: Any
    model_name: str
    retries: int  # searches more, where every call of a model failed
    stop: Sequence[str]  # the answer ends before the first of these
    schema: Mapping[str, Any] | None  # the form of the answer

    async def answer(self, on_event: Callable[[Event], None] | None = None) -> AIMessage:
        """Raises what `search` and `in_form` raise."""
        budget = self.budget if self.schema is None else with_room(self.budget, self.policy)
        result = await self._search(budget, on_event)
        more, calls, reasoning = NOTHING, [], result.text
        if self.schema is not None:
            text, more = await in_form(result, self.policy, self.schema, self.budget)
        elif isinstance(self.policy, TurnPolicy) and result.node is not None:
            step = result.tree.nodes[result.node].step
            assert step is not None
            text, calls = turn_of(step)
            reasoning = ""
        else:
            text = _spoken(result)
            reasoning = "" if text == reasoning else reasoning
            text = text[: find_stop(text, self.stop)]
        message = answered(result, text, self.model_name, reasoning=reasoning, calls=calls, more=more)
        message.response_metadata |= {
            "finish_reason": _finish(result, bool(calls)),
            "confidence": result.confidence,
            "stop": result.stop,
            "usage": usage_data(result, more),
        }
        return message

    async def _search(self, budget: Budget, on_event: Callable[[Event], None] | None) -> Result:
        for left in reversed(range(self.retries + 1)):
            try:
                return await search(
                    self.text, self.policy, self.verifier, self.strategy, budget, seed=self.seed, ledger=self.ledger,
                    on_event=on_event, context=self.context,
                )  # fmt: skip
            except (PolicyError, VerifierError):
                if not left:
                    raise
        raise AssertionError("unreachable")


def _spoken(result: Result) -> str:
    """The answer; where no path states one, the text of the best finished path, as the model wrote it."""
    if result.answer is not None:
        return result.answer
    nodes = [result.tree.nodes[i] for i in result.tree.terminals]
    ended = [node for node in nodes if node.dead is None and result.tree.state(node.id).text.strip()]
    if not ended:
        return not_found(result)
    best = max(ended, key=lambda node: (node.reward or 0.0, node.samples, -node.id))
    return result.tree.state(best.id).text


def _finish(result: Result, calling: bool) -> str:
    """As chat completions have it."""
    if calling:
        return "tool_calls"
    return "stop" if result.tree.terminals else "length"

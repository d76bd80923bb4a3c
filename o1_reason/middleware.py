"""`ReasoningMiddleware`: an agent of LangChain's `create_agent` that searches over its next turn when that pays."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, NotRequired

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.channels import UntrackedValue
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from .budget import Budget
from .context import field_of, guarded_choice
from .drawn import DrawnTurns, Threads, message_of, summed, tokens_of
from .driver import search
from .errors import ConfigurationError, O1ReasonError
from .loop import Loop
from .mdp import NOTHING, Usage
from .messages import asked
from .protocols import Strategy, Verifier
from .resolve import resolve_policy, resolve_strategy, resolve_verifier
from .result import Result
from .settings import within
from .strategies import BestOfN
from .turns import model_of

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
    )
    from langchain.agents.middleware.types import OmitFromInput, PrivateStateAttr
except ImportError as error:
    raise ConfigurationError("ReasoningMiddleware needs LangChain: pip install 'o1-reason[agents]'") from error

Response = ModelResponse[Any]
Request = ModelRequest[Any]
_LIMITS = ("max_calls", "max_tokens", "max_usd", "max_seconds")


def _added(total: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return (Usage(**total) + Usage(**more)).to_data()


class ReasoningState(AgentState[Any]):
    """What an agent's state gains: `reasoning_usage`, the cost of all turns so far, as `Usage.to_data` has it."""

    reasoning_usage: NotRequired[Annotated[dict[str, Any], OmitFromInput, _added]]
    reasoning_run: NotRequired[Annotated[dict[str, Any], UntrackedValue, PrivateStateAttr]]  # this run's, and seconds


@dataclass(frozen=True, slots=True)
class _Settings:
    verifier: Verifier | None
    strategy: Strategy
    budget: Budget
    run_budget: Budget
    samples: int
    agreement: float
    temperature: float | None
    seed: int


class ReasoningMiddleware(AgentMiddleware[ReasoningState, Any, Any]):
    """Searches over the model's next turn, tool calls included, before any tool runs.

    First `samples` turns are drawn at once. If a share of `agreement` of them is the same turn (equal calls, or texts
    with equal answers), it is taken. Otherwise a search goes on from them: they are its first candidates, and equal
    turns vote together. Every candidate is a call of the agent's own handler, so middlewares further down the list act
    on each. The model must sample: at temperature 0 all turns agree.

    The message that is chosen is the model's own; its `usage_metadata` is the sum over all candidates and the
    verifier, and ``response_metadata["o1_reason"]`` tells how it was chosen, as does an event with the candidates in
    ``stream_mode="custom"``. State: `ReasoningState`.

    verifier     an object, a LangChain chat model, or an adapter's name; it sees a call as ``name({"argument": ...})``,
                 the last human message as question, and all other messages as context
    strategy     an object, or a name such as ``"self_consistency"``
    budget       of one turn, the agreement check included
    run_budget   of all turns of one run of the agent together, in calls, tokens, seconds and dollars
    samples      turns to look at first, at least 2; 0: always search
    agreement    in [0, 1]
    temperature  of candidates whose strategy asks for none, where the model has such a setting

    Where a budget is used up, or allows not one candidate, the turn is one plain call. A call of the agent may set
    ``context["reasoner"]`` to a mapping of `strategy` (by name), `options` (the strategy's settings), `budget` (limits
    by name, no more than the middleware's own) and `seed`.

    Raises ConfigurationError for what cannot work. A turn of which every call failed raises what the model raised
    first, so that middlewares that retry can; VerifierError if no call of the verifier succeeded.
    """

    state_schema = ReasoningState

    def __init__(
        self,
        verifier: Any = None,
        *,
        strategy: Any = BestOfN(8, vote="weighted"),  # noqa: B008 - frozen
        budget: Budget = Budget(),  # noqa: B008 - frozen
        run_budget: Budget = Budget(),  # noqa: B008 - frozen
        samples: int = 3,
        agreement: float = 1.0,
        temperature: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if samples == 1 or samples < 0 or not 0 <= agreement <= 1:
            raise ConfigurationError(
                f"samples must be 0, or at least 2 that can agree, and agreement in [0, 1]; got {samples}, {agreement}"
            )
        self._settings = _Settings(
            resolve_verifier(verifier), resolve_strategy(strategy), budget, run_budget, samples, agreement,
            temperature, seed,
        )  # fmt: skip

    def wrap_model_call(self, request: Request, handler: Callable[[Request], Response]) -> ExtendedModelResponse[Any]:
        turn = _Turn(request, _chosen(self._settings, request))
        if turn.affordable:
            with Threads(lambda req: turn.hear(handler(req)), turn.budget.concurrency) as calls, Loop() as loop:
                response = loop.run(turn.take(calls))
            if response is not None:
                return turn.ended(response)
        turn.calls += 1
        return turn.ended(turn.hear(handler(request)))

    async def awrap_model_call(
        self, request: Request, handler: Callable[[Request], Awaitable[Response]]
    ) -> ExtendedModelResponse[Any]:
        turn = _Turn(request, _chosen(self._settings, request))

        async def heard(req: Request) -> Response:
            return turn.hear(await handler(req))

        response = await turn.take(heard) if turn.affordable else None
        if response is not None:
            return turn.ended(response)
        turn.calls += 1
        return turn.ended(await heard(request))


class _Turn:
    """One turn of the agent's model, from the request to the message that is chosen."""

    def __init__(self, request: Request, settings: _Settings) -> None:
        self._began = time.monotonic()
        self._request = request
        self._settings = settings
        run = dict(request.state.get("reasoning_run") or {})
        self._seconds: float = run.pop("seconds", 0.0)  # of the turns before, in this run
        self._spent = Usage(**run)
        self.budget = _left(settings, self._spent, self._seconds)
        self.calls = 0  # made of the model
        self._heard: list[AIMessage] = []  # all that the model said, also too late to count
        self._agreement: float | None = None
        self._searched = False
        self._result: Result | None = None

    @property
    def affordable(self) -> bool:
        """The budget allows a call."""
        return all(getattr(self.budget, name) != 0 for name in _LIMITS)

    def hear(self, response: Response) -> Response:
        """To be called with all that the handler gives."""
        self._heard.append(message_of(response))
        return response

    async def take(self, handler: Callable[[Request], Awaitable[Response]]) -> Response | None:
        """The response that is chosen; None where the budget ended before there was any.

        Raises what the handler raised first, if every call failed, and VerifierError if every call of the verifier did.
        """
        request = self._request
        found = model_of(resolve_policy(request.model)) if isinstance(request.model, BaseChatModel) else None
        model, chat = found or (request.model, None)

        def ask(options: dict[str, Any]) -> Awaitable[Response]:
            self.calls += 1
            return handler(request.override(model=model, model_settings={**request.model_settings, **options}))

        fields = getattr(type(model), "model_fields", ())
        turns = DrawnTurns(ask, chat, fields, self._settings.temperature)
        try:
            self._result = result = await self._search(turns)
        except O1ReasonError:
            if turns.errors and not self._heard:
                raise turns.errors[0] from None
            raise
        finally:
            self._heard += [said for error in turns.errors if (said := getattr(error, "ai_message", None))]
        for error in turns.errors:
            if isinstance(error, GraphBubbleUp):  # an interrupt of another middleware's
                raise error
        if result.node is not None:
            return turns.response(result.tree.nodes[result.node])
        return turns.others[0] if turns.others else None

    async def _search(self, turns: DrawnTurns) -> Result:
        settings, request = self._settings, self._request
        question, context = _asked([*filter(None, [request.system_message]), *request.messages])
        seed = settings.seed + len(request.messages)  # the question may be that of the turn before
        if settings.samples:
            check = BestOfN(settings.samples, vote="majority")
            first = await search(question, turns, None, check, self.budget, seed=seed, context=context)
            self._agreement = max(first.tree.votes.values(), default=0) / settings.samples
            if self._agreement >= settings.agreement or first.stop in ("budget", "deadline"):
                return first
            turns.rewind()
        self._searched = True
        budget = self.budget
        if budget.max_seconds is not None:
            budget = replace(budget, max_seconds=max(0.0, budget.max_seconds - (time.monotonic() - self._began)))
        return await search(question, turns, settings.verifier, settings.strategy, budget, seed=seed, context=context)

    def ended(self, response: Response) -> ExtendedModelResponse[Any]:
        """`response` with what was spent on the turn, and how it was chosen."""
        verifier = self._result.verifier_usage if self._result else NOTHING
        policy = sum(map(tokens_of, self._heard), Usage(self.calls))
        usage = policy + verifier
        shares = {"policy": policy.to_data(), "verifier": verifier.to_data()}
        told = {**self._told(), "usage": {**usage.to_data(), **shares}}
        if self._request.runtime is not None:
            self._request.runtime.stream_writer({"event": "turn", **told})
        brief = {name: value for name, value in told.items() if name != "candidates"}
        message = message_of(response)
        update = {
            "usage_metadata": summed(self._heard, verifier),
            "response_metadata": {**message.response_metadata, "o1_reason": brief},
        }
        messages = [known.model_copy(update=update) if known is message else known for known in response.result]
        seconds = self._seconds + time.monotonic() - self._began
        run = {**(self._spent + usage).to_data(), "seconds": seconds}
        return ExtendedModelResponse(
            ModelResponse(messages, response.structured_response),
            Command(update={"reasoning_usage": usage.to_data(), "reasoning_run": run}),
        )

    def _told(self) -> dict[str, Any]:
        """How the turn was chosen, in plain JSON types."""
        result = self._result
        if result is None:
            return {"agreement": None, "searched": False, "stop": "budget", "confidence": None, "candidates": []}
        nodes = [node for i in result.tree.terminals if (node := result.tree.nodes[i]).dead is None]
        return {
            "agreement": self._agreement,
            "searched": self._searched,
            "stop": result.stop,
            "confidence": result.confidence,
            "candidates": [
                {
                    "turn": node.step and node.step.text,
                    "votes": node.samples,
                    "score": node.reward,
                    "chosen": node.id == result.node,
                }
                for node in nodes
            ],
        }


def _chosen(settings: _Settings, request: Request) -> _Settings:
    """With what the call of the agent has chosen in its context. Raises ConfigurationError for what it cannot."""
    given = field_of(getattr(request.runtime, "context", None))
    if given is None:
        return settings
    strategy, budget, seed = guarded_choice(given, settings.strategy, settings.budget, settings.seed)
    return replace(settings, strategy=strategy, budget=budget, seed=seed)


def _left(settings: _Settings, spent: Usage, seconds: float) -> Budget:
    """What one turn may spend after `spent` and `seconds` in the run before it."""
    run = settings.run_budget
    used = {
        "max_calls": spent.calls, "max_tokens": spent.tokens, "max_usd": spent.cost_usd or 0.0, "max_seconds": seconds,
    }  # fmt: skip
    limits = {name: getattr(run, name) for name in _LIMITS}
    left = {name: max(0, limit - used[name]) for name, limit in limits.items() if limit is not None}
    return within(settings.budget, left)


def _asked(messages: list[BaseMessage]) -> tuple[str, tuple[dict[str, Any], ...]]:
    """Question and context, also of a conversation in which no human asks anything in words."""
    last = next((message for message in reversed(messages) if isinstance(message, HumanMessage)), None)
    return asked(messages, None if last is not None and last.text.strip() else "What is the best next turn?")

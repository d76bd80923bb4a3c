"""What one call of a reasoner may choose: LangGraph's runtime context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from typing_extensions import TypedDict

from .asking import Ask
from .budget import Budget
from .engine import Search
from .errors import ConfigurationError
from .ledger import Ledger
from .parts import resolve_parts
from .protocols import Policy, Strategy, Verifier
from .resolve import resolve_strategy
from .settings import budget_of, narrowed, with_settings, within
from .tree import step_from


class ReasonerContext(TypedDict, total=False):
    """What a call may choose, each in place of what the reasoner was made with.

    policy, verifier  an object, a LangChain chat model, or an adapter's name
    strategy          an object, or a name
    options           settings of the strategy, by name
    budget            a `Budget`, or limits by name, which replace those of the reasoner's budget
    """

    policy: Any
    verifier: Any
    strategy: Any
    options: dict[str, Any]
    budget: Any
    seed: int


GUARDED = ("strategy", "options", "budget", "seed")  # what a caller who is not trusted may choose


@dataclass(frozen=True)
class Choices:
    """All that decides a search but the question."""

    policy: Policy
    verifier: Verifier | None
    strategy: Strategy
    budget: Budget
    seed: int
    ask: Ask
    ledger: Ledger | None

    def search(self, start: Mapping[str, Any]) -> Search:
        """A search that begins as `start`, the first record of its log, says."""
        return Search(
            start["question"], self.policy, self.verifier, self.strategy, lambda n: self.ask.within(self.budget, n),
            context=tuple(start["context"]), seed=self.seed, steps=[step_from(step) for step in start["steps"]],
            widened=start.get("widened", 0), ledger=self.ledger, log=[],
        )  # fmt: skip


def choose(defaults: Choices, context: Any, nested: bool, guarded: bool) -> Choices:
    """The choices of one call.

    nested   the reasoner runs inside a larger graph, whose context may hold other things: what is meant for the
             reasoner is its field `reasoner`
    guarded  only `GUARDED` may be chosen, the strategy by name, and no more than the reasoner's own budget

    Raises ConfigurationError for what cannot work.
    """
    given = _meant(context) if nested else context
    if given is None:
        return defaults
    if guarded:
        strategy, budget, seed = guarded_choice(given, defaults.strategy, defaults.budget, defaults.seed)
        return replace(defaults, strategy=strategy, budget=budget, seed=seed)
    _check(given, tuple(ReasonerContext.__annotations__))
    policy, verifier, strategy = resolve_parts(
        given.get("policy", defaults.policy), given.get("verifier", defaults.verifier),
        given.get("strategy", defaults.strategy), defaults.ledger,
    )  # fmt: skip
    return replace(
        defaults, policy=policy, verifier=verifier, strategy=with_settings(strategy, given.get("options") or {}),
        budget=budget_of(defaults.budget, given.get("budget")), seed=given.get("seed", defaults.seed),
    )  # fmt: skip


def guarded_choice(given: Any, strategy: Strategy, budget: Budget, seed: int) -> tuple[Strategy, Budget, int]:
    """What a caller who is not trusted may choose in place of these. Raises ConfigurationError for anything else."""
    _check(given, GUARDED)
    if "strategy" in given:
        strategy = resolve_strategy(str(given["strategy"]))
    strategy = narrowed(strategy, given.get("options") or {}, budget)
    return strategy, within(budget, given.get("budget") or {}), given.get("seed", seed)


def field_of(context: Any) -> Any:
    """The field `reasoner` of a larger graph's context, a mapping or an object; None where it has none."""
    return context.get("reasoner") if isinstance(context, Mapping) else getattr(context, "reasoner", None)


def _check(given: Any, known: Sequence[str]) -> None:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"a reasoner's context is a ReasonerContext, a mapping; got {type(given).__name__}")
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ConfigurationError(f"a call cannot choose {', '.join(unknown)} here; it can choose {', '.join(known)}")


def _meant(context: Any) -> Any:
    """What is meant for the reasoner in the context of a larger graph, or of a call from inside one of its nodes."""
    own = isinstance(context, Mapping) and set(context) <= set(ReasonerContext.__annotations__)
    return context if own else field_of(context)

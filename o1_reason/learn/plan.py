"""What a round of the learning loop does."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from ..errors import ConfigurationError
from ..resolve import resolve_strategy
from ..settings import with_options
from .dataset import LABELS
from .objectives import Name as Objective

OBJECTIVES = get_args(Objective)
METHODS = ("sft", "dpo", "grpo")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round does; the seed apart, it decides everything.

    problems          training problems of a round, drawn anew; `tries` searches of each
    strategy, option  of all searches: a name, and settings NAME=VALUE. Within small budgets one that spends whatever it
                      is given, as best-of-n; one that needs much for anything, as beam search, within large ones
    tokens            most of a search for data
    label             how steps are labelled: "mips", "math_shepherd" or "omega_prm", from `solutions` of each problem
                      (searches, in OmegaPRM) with `rollouts` from each step; or from the traces, "outcomes" or "values"
    objective, prm    of the reward model, and the learner's settings
    method, policy    how the policy is trained, and the learner's settings
    gate_problems     held-out problems of each gate; `gate_tries` searches of each, by both sides
    gate_tokens       most of one of these searches
    alpha             of the gates' tests
    measure_problems  test problems on which each round is measured, the same for all rounds
    measure_tokens    budgets of the curve of accuracy against tokens
    """

    problems: int = 1000
    tries: int = 1
    strategy: str = "best_of_n"
    option: tuple[str, ...] = ("n=256",)
    tokens: int = 600
    label: str = "mips"
    solutions: int = 4
    rollouts: int = 4
    objective: str = "regression"
    prm: Mapping[str, Any] = field(default_factory=dict)
    method: str = "sft"
    policy: Mapping[str, Any] = field(default_factory=dict)
    gate_problems: int = 100
    gate_tries: int = 4
    gate_tokens: int = 300
    alpha: float = 0.05
    measure_problems: int = 100
    measure_tokens: tuple[int, ...] = (100, 200, 400, 800)

    def __post_init__(self) -> None:
        for name, known in (("label", LABELS), ("objective", OBJECTIVES), ("method", METHODS)):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int) and value < 1:
                raise ConfigurationError(f"{each.name} must be an integer >= 1; got {value}")
        if not 0 < self.alpha < 0.5:
            raise ConfigurationError(f"alpha must be a number between 0 and 0.5; got {self.alpha}")
        tokens = self.measure_tokens
        if not tokens or min(tokens) < 1 or list(tokens) != sorted(set(tokens)):
            raise ConfigurationError(f"measure_tokens must be rising integers >= 1; got {list(tokens)}")
        with_options(resolve_strategy(self.strategy), self.option)

    def to_data(self) -> dict[str, Any]:
        """Plain JSON types; `Plan.from_data` is the inverse."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Plan":
        known = {each.name for each in fields(cls)}
        given: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in data.items() if name in known
        }
        return cls(**given)


def planned(learner: Any, scale: str) -> Plan:
    """The plan that goes with a scale: what ``learner.plan(scale)`` says; `Plan()` for a learner without one."""
    own: Callable[[str], Plan] | None = getattr(learner, "plan", None)
    return Plan() if own is None else own(scale)

"""What a search may spend, and the meter that keeps it within that."""

from dataclasses import dataclass, fields, replace
from typing import Any

from .errors import ConfigurationError
from .mdp import Usage


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one search; None is unlimited. Policy and verifier both count.

    Running out ends the search with the best answer so far, never with an error.
    """

    max_calls: int | None = None
    max_tokens: int | None = None  # prompt + completion
    max_seconds: float | None = None  # wall clock
    max_usd: float | None = None
    max_nodes: int | None = 4096  # of the tree, the root not counted
    concurrency: int = 16  # model calls in flight
    call_seconds: float | None = 600.0  # one model call; a longer one counts as failed

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind = (int,) if field.name in ("max_calls", "max_tokens", "max_nodes", "concurrency") else (int, float)
            least = 1 if field.name == "concurrency" else 0
            if value is None and field.name != "concurrency":
                continue
            if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
                wanted = "an integer" if kind == (int,) else "a number"
                raise ConfigurationError(f"Budget.{field.name} must be {wanted} >= {least}; got {value!r}")


def tranche(whole: Budget, soft: Budget, times: int) -> Budget:
    """`whole`, but of what `soft` limits no more than `times` as much as it says."""
    limits: dict[str, Any] = {}
    for name in ("max_calls", "max_tokens", "max_seconds", "max_usd", "max_nodes"):
        part = getattr(soft, name)
        each = [part if name == "max_seconds" else part * times] if part is not None else []  # seconds start anew
        limits[name] = min((n for n in (getattr(whole, name), *each) if n is not None), default=None)
    return replace(whole, **limits)


class Meter:
    """Counts what was spent and what calls in flight may still spend, so that no call can pass the budget.

    A call's price is known beforehand from `bound(state, n, max_steps) -> Usage` of a policy or verifier that has
    it. Without one, the dearest call so far is the estimate: then the last calls can pass a limit on tokens or
    dollars, by what they cost more than any before; limits on calls, nodes and seconds hold in any case.
    """

    def __init__(self, budget: Budget) -> None:
        self._spent: dict[str, list[Any]] = {"policy": [0, 0, 0, None], "verifier": [0, 0, 0, None]}  # as in Usage
        self.widen(budget)
        self.forget_reserved()

    def widen(self, budget: Budget) -> None:
        """Count against another budget from now on; nothing may be reserved."""
        self.budget = budget
        self.limited = not (budget.max_calls is None and budget.max_tokens is None and budget.max_usd is None)

    def forget_reserved(self) -> None:
        """Nothing is in flight."""
        self._calls, self._tokens, self._usd = 0, 0, 0.0  # reserved by calls in flight

    def fits(self, bound: Usage) -> bool:
        """Whether a call that costs at most `bound` may start."""
        if not self.limited:
            return True
        b, p, v = self.budget, self.policy, self.verifier
        if b.max_calls is not None and p.calls + v.calls + self._calls + bound.calls > b.max_calls:
            return False
        if b.max_tokens is not None and p.tokens + v.tokens + self._tokens + bound.tokens > b.max_tokens:
            return False
        if b.max_usd is None:
            return True
        spent = (p.cost_usd or 0.0) + (v.cost_usd or 0.0) + self._usd + (bound.cost_usd or 0.0)
        return spent <= b.max_usd

    def reserve(self, bound: Usage, sign: int = 1) -> None:
        """Set `bound` aside for a call that starts; with sign -1 give it back."""
        if self.limited:
            self._calls += sign * bound.calls
            self._tokens += sign * bound.tokens
            self._usd += sign * (bound.cost_usd or 0.0)

    def set_aside(self, bound: Usage) -> bool:
        """`reserve` it, if it `fits`."""
        fits = self.fits(bound)
        if fits:
            self.reserve(bound)
        return fits

    def spend(self, role: str, usage: Usage) -> None:
        """Count what a call of "policy" or "verifier" cost."""
        spent = self._spent[role]
        spent[0] += usage.calls
        spent[1] += usage.prompt_tokens
        spent[2] += usage.completion_tokens
        if usage.cost_usd is not None:
            spent[3] = usage.cost_usd + (spent[3] or 0.0)

    @property
    def policy(self) -> Usage:
        return Usage(*self._spent["policy"])

    @property
    def verifier(self) -> Usage:
        return Usage(*self._spent["verifier"])

    @property
    def usage(self) -> Usage:
        return self.policy + self.verifier

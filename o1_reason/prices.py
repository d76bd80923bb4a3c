"""What calls may cost, so that none is started that could pass the budget."""

from .budget import Meter
from .mdp import NOTHING, State, Usage
from .protocols import Policy, Verifier


class Prices:
    """Upper bounds on calls: what policy and verifier say (`bound`), or else the dearest sample so far."""

    def __init__(self, policy: Policy | None, verifier: Verifier | None, meter: Meter) -> None:
        self._parts = {"policy": policy, "verifier": verifier}
        self._meter = meter
        self._dearest = {"policy": (1, 1.0, 0.0), "verifier": (1, 1.0, 0.0)}  # calls; tokens, dollars of a sample

    def affordable(self, state: State, n: int, max_steps: int, bare: bool) -> tuple[int, Usage, Usage]:
        """The most samples of at most `n` that may be ordered, and what to set aside for them and for their scores.

        `bare`: rather samples that cannot be scored than none.
        """
        for k in range(n, 0, -1):
            price = self.bound("policy", state, k, max_steps)
            scoring = self.bound("verifier", state, k, max_steps)
            if self._meter.fits(price + scoring):
                return k, price, scoring
        if bare:
            for k in range(n, 0, -1):
                price = self.bound("policy", state, k, max_steps)
                if self._meter.fits(price):
                    return k, price, NOTHING
        return 0, NOTHING, NOTHING

    def bound(self, role: str, state: State, n: int, max_steps: int) -> Usage:
        """The most that sampling, or scoring, `n` continuations of `state` costs."""
        part = self._parts[role]
        if part is None:
            return NOTHING
        known = getattr(part, "bound", None)
        if known is not None:
            return known(state, n, max_steps)
        calls, tokens, dollars = self._dearest[role]
        return Usage(calls, round(tokens * n), 0, dollars * n)

    def remember(self, role: str, usage: Usage, n: int) -> None:
        """A call for `n` samples cost `usage`."""
        if not self._meter.limited:
            return
        calls, tokens, dollars = self._dearest[role]
        per = max(n, 1)
        self._dearest[role] = (
            max(calls, usage.calls),
            max(tokens, usage.tokens / per),
            max(dollars, (usage.cost_usd or 0.0) / per),
        )

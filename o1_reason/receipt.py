"""What a model call owes and may still take, seen from inside the call.

The engine opens a receipt around each call. An adapter charges it as cost arises, attempt by attempt, so that a call
that fails or is cancelled in the middle is still paid for in `Result.usage`; and it reads from it how much time the
search has left. Outside a search there is no receipt, and nothing is charged.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

from .errors import ModelError
from .mdp import NOTHING, Usage


class Receipt:
    """One call's bill so far.

    `deadline` is a time of the running event loop, None where time is unlimited; `free` calls are set aside and not
    yet made; `reserve(n)` sets n more aside, if the budget has them; `kept`: whoever is called charges it.
    """

    __slots__ = ("deadline", "free", "kept", "reserve", "usage")

    def __init__(self, free: int = 0, reserve: Callable[[int], bool] = lambda n: True) -> None:
        self.usage = NOTHING
        self.deadline: float | None = None
        self.free = free
        self.kept = False
        self.reserve = reserve

    @property
    def owed(self) -> Usage:
        """What a call cost that did not return its cost: its bill, or one call where nobody kept a bill."""
        return self.usage if self.kept else Usage(calls=1)


current: ContextVar[Receipt | None] = ContextVar("o1_reason_receipt", default=None)


def charge(usage: Usage) -> None:
    """Add `usage` to the bill of the call that is running."""
    receipt = current.get()
    if receipt is not None:
        receipt.kept = True
        receipt.usage += usage


class Tally:
    """What one call of a policy or verifier costs, over all its requests; also charged to the search's receipt."""

    def __init__(self) -> None:
        self.usage = NOTHING
        charge(NOTHING)  # from now on the bill is kept, even if no request is ever made

    def add(self, usage: Usage) -> None:
        self.usage += usage
        charge(usage)


def seconds_left() -> float | None:
    """Seconds until the search's deadline; None where there is none."""
    receipt = current.get()
    if receipt is None or receipt.deadline is None:
        return None
    return receipt.deadline - asyncio.get_running_loop().time()


def more_calls(n: int) -> bool:
    """Whether the budget allows `n` calls beyond what was set aside; if so, they are set aside as well."""
    receipt = current.get()
    if receipt is None:
        return True
    if not receipt.reserve(n):
        return False
    receipt.free += n
    return True


def take_call() -> None:
    """To be called right before each request: one of the calls set aside, or else one more of the budget.

    Raises ModelError where there is none; such a request must not be made.
    """
    receipt = current.get()
    if receipt is None:
        return
    if receipt.free <= 0 and not more_calls(1):
        raise ModelError("the budget has no call left for this request")
    receipt.free -= 1

"""Is a verifier worth using? Labelled solutions go in, an `Audit` comes out; ``o1-reason audit-verifier`` shows it."""

from collections.abc import Callable, Iterable
from typing import Any

from ..budget import Budget
from ..errors import ConfigurationError, VerifierError
from ..ledger import resolve_ledger
from ..resolve import resolve_verifier
from .data import Solution, Truth, read_solutions
from .judge import Judge, Judgement
from .summary import Audit, summarise

__all__ = ["Audit", "Judgement", "Solution", "Truth", "audit_verifier", "read_solutions"]


async def audit_verifier(
    solutions: Iterable[Solution],
    verifier: Any,
    *,
    budget: Budget = Budget(),  # noqa: B008 - frozen
    batch: int = 1,
    prefixes: bool = False,
    threshold: float | None = None,
    best_of: int | None = None,
    ledger: Any = None,
    seed: int = 0,
    progress: Callable[[Judgement], None] = lambda found: None,
) -> Audit:
    """Have `verifier` judge `solutions`, and tell whether its judgement is worth having.

    verifier    an object, a LangChain chat model, or an adapter's name such as ``"embedded"``
    budget      limits of the whole run; what the ledger has costs nothing. What is left out at the end is counted
    batch       solutions of one question, neighbours in the file, that go to the verifier in one call
    prefixes    have a verifier that gives one reward per state judge the state after each step, too
    threshold   a step is taken for wrong below it, in [0, 1]; None: chosen by cross-validation
    best_of     n at which the verdict is given; None: the greatest power of two that half of the questions allow
    ledger      a path (SQLite), a LangGraph store or a `Ledger`: no finished call is ever paid twice
    progress    called with what has been found so far, whenever a call has finished

    Raises ConfigurationError for what cannot work, VerifierError if no solution got a score.
    """
    judge_of = resolve_verifier(verifier)
    if judge_of is None:
        raise ConfigurationError("there is no verifier to audit; name an adapter or give an object")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigurationError(f"threshold must be a number in [0, 1]; got {threshold}")
    if best_of is not None and best_of < 2:
        raise ConfigurationError(f"best_of must be an integer >= 2, for there is no choice among fewer; got {best_of}")
    book = resolve_ledger(ledger)
    try:
        found = await Judge(judge_of, budget, book, batch=batch, prefixes=prefixes).run(solutions, progress)
    finally:
        if book is not None and book is not ledger:
            await book.close()
    if not found.judged and not found.left_out:
        raise ConfigurationError("there are no solutions to judge")
    if found.failures and all(one.rewards is None for one in found.judged):
        raise VerifierError(f"no call of the verifier succeeded; the first: {next(iter(found.failures.values()))[1]}")
    name = verifier if isinstance(verifier, str) else type(judge_of).__name__
    return summarise(name, found, threshold=threshold, best_of=best_of, seed=seed)

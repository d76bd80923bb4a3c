"""The bare asyncio driver: one search, awaited, without LangGraph."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .budget import Budget
from .engine import Event, Search
from .ledger import resolve_ledger
from .mdp import State, Step
from .resolve import resolve_policy, resolve_strategy, resolve_verifier
from .result import Result

Approve = Callable[[State], Awaitable[bool]]
REFUSED = "The user does not allow this call."


async def search(
    question: str,
    policy: Any,
    verifier: Any = None,
    strategy: Any = "beam",
    budget: Budget = Budget(),  # noqa: B008 - frozen
    *,
    seed: int = 0,
    ledger: Any = None,
    on_event: Callable[[Event], None] | None = None,
    context: tuple[dict[str, Any], ...] = (),
    steps: Sequence[Step | str] = (),
    approve: Approve | None = None,
) -> Result:
    """Search for the answer to `question`.

    policy, verifier   an object, a LangChain chat model, or an adapter's name such as ``"embedded"``
    strategy           an object, or a name such as ``"beam"``
    seed               same seed, inputs and order of completion: same tree
    ledger             a path (SQLite), a LangGraph store or a `Ledger`: no finished call is ever paid twice
    on_event           called with each node created, scored, backtracked to or failed, and at the end
    context            the messages before the question
    steps              steps to go on from, such as ``result.tree.steps(7)``; nothing else is tried in their place
    approve            asked before tools with effects run, with the state whose last step calls them; False: they do
                       not run, and the policy is told so

    Raises ConfigurationError for what cannot work, PolicyError or VerifierError if there is no answer and
    no call of the policy, or none of the verifier, succeeded.
    Cancelling it cancels all its calls.
    """
    book = resolve_ledger(ledger)
    run = Search(
        question,
        resolve_policy(policy),
        resolve_verifier(verifier),
        resolve_strategy(strategy),
        budget,
        context=context,
        seed=seed,
        steps=[Step(step) if isinstance(step, str) else step for step in steps],
        ledger=book,
        on_event=on_event,
    )
    try:
        return await drive(run, approve)
    finally:
        if book is not None and book is not ledger:
            await book.close()


async def drive(run: Search, approve: Approve | None = None) -> Result:
    """All transitions in turn, to the end. However it ends, no call is left, and the meter counts those cancelled."""
    try:
        while True:
            while not run.backtrack():
                await run.generate()
                await run.verify()
            state = run.pending
            if state is None:
                break
            await run.act(None if approve is None or await approve(state) else REFUSED)
        await run.close()  # first, so that the result counts what was cancelled
        return run.finalize()
    finally:
        await run.close()

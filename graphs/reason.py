"""The reasoner as a deployable graph, configured from the environment; offline and without a key by default.

O1_REASON_POLICY        an adapter, e.g. "embedded" (the default)
O1_REASON_VERIFIER      an adapter, or "none"; default "embedded:prm+rules" with the embedded policy, else none
O1_REASON_STRATEGY      e.g. "beam" (the default) or "mcts"
O1_REASON_MAX_TOKENS, O1_REASON_MAX_CALLS, O1_REASON_MAX_SECONDS, O1_REASON_MAX_USD    unlimited by default
O1_REASON_LEDGER        a SQLite file; finished calls are never paid twice
"""

from os import environ

from o1_reason import Budget, create_reasoner


def _limit(name: str, kind: type[int] | type[float]) -> int | float | None:
    value = environ.get(f"O1_REASON_MAX_{name}")
    return kind(value) if value else None


policy = environ.get("O1_REASON_POLICY") or "embedded"
verifier = environ.get("O1_REASON_VERIFIER") or ("embedded:prm+rules" if policy == "embedded" else "none")

graph = create_reasoner(
    policy,
    None if verifier == "none" else verifier,
    strategy=environ.get("O1_REASON_STRATEGY") or "beam",
    budget=Budget(
        max_tokens=_limit("TOKENS", int),  # type: ignore[arg-type]
        max_calls=_limit("CALLS", int),  # type: ignore[arg-type]
        max_seconds=_limit("SECONDS", float),
        max_usd=_limit("USD", float),
    ),
    ledger=environ.get("O1_REASON_LEDGER") or None,
    name="reason",
)

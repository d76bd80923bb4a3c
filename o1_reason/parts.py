"""The parts of a search, made and checked before it is run."""

from .ledger import identity_of, resolve_ledger
from .protocols import Policy, Strategy, Verifier
from .resolve import resolve_policy, resolve_strategy, resolve_verifier


def resolve_parts(
    policy: object, verifier: object | None, strategy: object, ledger: object | None
) -> tuple[Policy, Verifier | None, Strategy]:
    """Objects from what a user wrote. Raises ConfigurationError for what cannot work, with the ledger or without."""
    parts = resolve_policy(policy), resolve_verifier(verifier), resolve_strategy(strategy)
    if resolve_ledger(ledger) is not None:
        identity_of(parts[0], "policy")
        if parts[1] is not None:
            identity_of(parts[1], "verifier")
    return parts

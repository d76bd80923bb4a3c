"""What a user names instead of building: defaults that go together, and a strategy's settings by name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from .budget import Budget
from .errors import ConfigurationError
from .protocols import Strategy


def with_defaults(policy: str, verifier: str | None, strategy: str | None) -> tuple[str | None, str]:
    """Verifier (None: none is used) and strategy by name, where None stands for a default.

    The embedded policy is judged by the embedded verifier, another one by none ("none" says so); the default strategy
    is beam search with a verifier, a vote without.
    """
    if verifier is None:
        verifier = "embedded:prm+rules" if policy == "embedded" else "none"
    judge = None if verifier == "none" else verifier
    return judge, strategy or ("beam" if judge else "self_consistency")


LIMITS: Mapping[str, type[int] | type[float]] = {
    "max_tokens": int, "max_calls": int, "max_seconds": float, "max_usd": float, "max_nodes": int,
}  # fmt: skip


def from_environment(environ: Mapping[str, str], prefix: str = "O1_REASON_") -> dict[str, Any]:
    """What `create_reasoner` is given, from variables: policy, verifier, strategy, budget, ledger.

    POLICY, VERIFIER ("none" for none), STRATEGY, LEDGER, and MAX_TOKENS, MAX_CALLS, MAX_SECONDS, MAX_USD, MAX_NODES,
    each with the prefix; for what is not set, the embedded policy and `with_defaults`. Raises ConfigurationError for a
    limit that is no number.
    """
    given = {name.removeprefix(prefix).lower(): text for name, text in environ.items() if name.startswith(prefix)}
    policy = given.get("policy") or "embedded"
    verifier, strategy = with_defaults(policy, given.get("verifier") or None, given.get("strategy") or None)
    limits: dict[str, Any] = {}
    for name, kind in LIMITS.items():
        try:
            limits |= {name: kind(given[name])} if given.get(name) else {}
        except ValueError as error:
            raise ConfigurationError(f"{prefix}{name.upper()} must be a number; got {given[name]!r}") from error
    return {
        "policy": policy, "verifier": verifier, "strategy": strategy, "budget": Budget(**limits),
        "ledger": given.get("ledger") or None,
    }  # fmt: skip


def with_options(strategy: Strategy, options: Sequence[str]) -> Strategy:
    """The strategy with settings written NAME=VALUE; values are JSON where they can be, text otherwise."""
    settings: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in _known(strategy):
            raise _unknown(strategy, option)
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return with_settings(strategy, settings)


def with_settings(strategy: Strategy, settings: Mapping[str, Any]) -> Strategy:
    """The strategy with `settings` in place of its own; raises ConfigurationError for what it does not have."""
    for name in settings:
        if name not in _known(strategy):
            raise _unknown(strategy, name)
    try:
        return replace(strategy, **settings) if settings else strategy  # type: ignore[type-var]
    except TypeError as error:
        raise ConfigurationError(f"{', '.join(settings)}: {error}") from error


def narrowed(strategy: Strategy, options: Mapping[str, Any], budget: Budget) -> Strategy:
    """The strategy with `options`, for somebody who is not trusted.

    Raises ConfigurationError also for whole numbers beyond the budget's limit on nodes: no search could use them, and
    some would cost memory before it starts.
    """
    most = budget.max_nodes
    for option, value in options.items():
        if isinstance(value, int) and most is not None and value > most:
            raise ConfigurationError(f"{option} must be at most {most}, which is the most nodes a search may have here")
    return with_settings(strategy, options)


def budget_of(usual: Budget, given: Budget | Mapping[str, Any] | None) -> Budget:
    """`given`, or `usual` with the limits that are given by name. Raises ConfigurationError for other names."""
    if isinstance(given, Budget):
        return given
    names = [field.name for field in fields(Budget)]
    for name in given or {}:
        if name not in names:
            raise ConfigurationError(f"a budget has no {name}; there are: {', '.join(names)}")
    return replace(usual, **(given or {}))


def within(most: Budget, wanted: Mapping[str, Any]) -> Budget:
    """What is `wanted`, but nowhere more than `most`. Raises ConfigurationError for what is no limit."""
    asked = budget_of(most, wanted)
    limits: dict[str, Any] = {}
    for field in fields(Budget):
        both = [value for budget in (most, asked) if (value := getattr(budget, field.name)) is not None]
        limits[field.name] = min(both, default=None)
    return Budget(**limits)


def _known(strategy: Strategy) -> list[str]:
    return sorted(field.name for field in fields(strategy)) if is_dataclass(strategy) else []


def _unknown(strategy: Strategy, option: str) -> ConfigurationError:
    known = ", ".join(_known(strategy)) or "none"
    return ConfigurationError(f"{option!r} is no setting of {type(strategy).__name__}; settings: {known}")

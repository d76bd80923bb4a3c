"""What is served under which name, and what a request may change of it."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..budget import Budget
from ..errors import ConfigurationError
from ..protocols import Policy, Strategy, Verifier
from ..resolve import resolve_policy, resolve_strategy, resolve_verifier
from ..settings import budget_of, narrowed, with_defaults, with_options, with_settings

PREFIX = "reasoner/"  # clients take ids that begin with "o1" for models of OpenAI's

# A reasoning effort multiplies how wide a strategy searches: the setting that says so, and the factor.
WIDTH = {"SelfConsistency": "n", "BestOfN": "n", "BeamSearch": "width", "DepthFirst": "branch", "DVTS": "n",
         "MCTS": "simulations"}  # fmt: skip
EFFORTS = {"minimal": 0.25, "low": 0.5, "medium": 1.0, "high": 2.0, "xhigh": 4.0}


@dataclass(frozen=True, slots=True)
class Model:
    """A policy, a verifier, a strategy and a budget under one name. `budget` is also the most a request may ask for."""

    id: str
    policy: Policy
    verifier: Verifier | None
    strategy: Strategy
    budget: Budget

    def __post_init__(self) -> None:
        if self.budget.max_nodes is None:
            raise ConfigurationError(f"{self.id} needs a limit on nodes, which holds for what requests ask for, too")


def build(policy: str, verifier: str | None, strategy: Strategy, budget: Budget, name: str | None = None) -> Model:
    """A model from the names of its policy and verifier; without a `name` it has that of the policy's model.

    Raises ConfigurationError for what names nothing.
    """
    adapter, _, given = policy.partition(":")
    id = PREFIX + (name or given.partition("?")[0] or adapter)
    return Model(id, resolve_policy(policy), resolve_verifier(verifier), strategy, budget)


def named(
    policy: str, verifier: str | None, strategy: str | None, options: Sequence[str], budget: Budget,
    name: str | None = None,
) -> Model:  # fmt: skip
    """A model as commands name it: defaults where nothing is given, settings of the strategy as NAME=VALUE."""
    verifier, strategy = with_defaults(policy, verifier, strategy)
    return build(policy, verifier, with_options(resolve_strategy(strategy), options), budget, name)


def load(path: Path, budget: Budget) -> list[Model]:
    """The models of a TOML file: a table ``[reasoner.NAME]`` each, with `policy`, and where wanted `verifier`,
    `strategy`, `options` of the strategy, and `budget`, whose fields replace those of the one given here."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("reasoner")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not isinstance(tables, dict) or not tables or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigurationError(f'{path} needs a table [reasoner.NAME] with policy = "..." for each model')
    try:
        return [_from_table(name, table, budget) for name, table in tables.items()]
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _from_table(name: str, table: dict[str, Any], budget: Budget) -> Model:
    kinds = {"policy": str, "verifier": str, "strategy": str, "options": dict, "budget": dict}
    for key, value in table.items():
        if key not in kinds or not isinstance(value, kinds[key]):
            wanted = ", ".join(f"{key} ({kind.__name__})" for key, kind in kinds.items())
            raise ConfigurationError(f"[reasoner.{name}] {key} = {value!r} cannot be used; there are: {wanted}")
    if "policy" not in table:
        raise ConfigurationError(f"[reasoner.{name}] needs a policy")
    policy = table["policy"]
    verifier, strategy = with_defaults(policy, table.get("verifier"), table.get("strategy"))
    search = with_settings(resolve_strategy(strategy), table.get("options", {}))
    return build(policy, verifier, search, budget_of(budget, table.get("budget")), name)


# What a request may change.


def strategy_for(model: Model, name: str | None, options: Mapping[str, Any], effort: str | None) -> Strategy:
    """The strategy of a request: the model's or the one named, widened by `effort`, with `options` on top.

    Raises ConfigurationError for what cannot be (`settings.narrowed`).
    """
    strategy = model.strategy if name is None else resolve_strategy(name)
    if effort is not None:
        strategy = _widened(strategy, effort)
    return narrowed(strategy, options, model.budget)


def _widened(strategy: Strategy, effort: str) -> Strategy:
    if effort not in EFFORTS:
        raise ConfigurationError(
            f"reasoning_effort must be one of {', '.join(EFFORTS)}; got {effort!r}. Without any search: "
            '"reasoner": {"strategy": "cot"}'
        )
    setting = WIDTH.get(type(strategy).__name__)
    if setting is None:
        return strategy
    unit = getattr(strategy, "branch", 1) if type(strategy).__name__ == "DVTS" else 1  # n is a multiple of it
    width = max(1, math.ceil(getattr(strategy, setting) * EFFORTS[effort] / unit)) * unit
    return with_settings(strategy, {setting: width})

"""One training of one model on one file of data: a learner's, or a transformers model with TRL."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..resolve import adapters, resolve_policy, resolve_verifier
from .learner import Learner, Report, resolve_learner
from .plan import METHODS, OBJECTIVES
from .problems import GoldChecker
from .traces import TraceStore

if TYPE_CHECKING:
    from .prm_trainer import PRMSettings

Settings = Mapping[str, Any]


def settings_of(options: Sequence[str]) -> dict[str, Any]:
    """Settings written NAME=VALUE; values are JSON where they can be, text otherwise."""
    found: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{option!r} is no setting; write NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def learns(model: str) -> bool:
    """The model is an adapter's own, and not a name or folder of transformers."""
    return model.partition(":")[0] in adapters()


def start_of(model: str, given: Path | None) -> Path:
    """The folder of weights to start from: the one that is given, or where the adapter's own policy has its weights."""
    if given is not None:
        return given
    try:
        weights = getattr(resolve_policy(model), "weights", None)
    except ConfigurationError:  # the name is a learner's, with settings that no policy has
        weights = None
    if not isinstance(weights, Path):
        raise ConfigurationError(f"nobody knows which weights {model!r} starts from; name their folder with --start")
    return weights.parent


def train_prm(
    data: Path, model: str, out: Path, *, objective: str, start: Path | None, seed: int, settings: Settings,
    report: Report,
) -> dict[str, Any]:  # fmt: skip
    """Train a reward model, and return the record. Raises ConfigurationError for what cannot work."""
    _known(objective, OBJECTIVES, "objective")
    if learns(model):
        who = _learner(model, out)
        return who.train_prm(
            data, start_of(model, start), out, objective=objective, seed=seed, report=report, **settings
        )
    from .prm_data import tree_rows
    from .prm_trainer import train_prm as train

    options = prm_settings(objective, settings)
    rows = asyncio.run(tree_rows(TraceStore(data), GoldChecker())) if objective == "td" else data
    return train(str(start or model), rows, out, options, seed=seed, report=report)


def train_policy(
    data: Path, model: str, out: Path, *, method: str, start: Path | None, seed: int, settings: Settings,
    report: Report, verifier: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train a policy, and return the record. GRPO of a transformers model takes the `verifier` for its step rewards."""
    _known(method, METHODS, "method")
    if learns(model):
        if verifier is not None:
            raise ConfigurationError("GRPO of a learner takes the reward model in --start; leave --verifier out")
        who = _learner(model, out)
        return who.train_policy(data, start_of(model, start), out, method=method, seed=seed, report=report, **settings)
    from . import policy_trainer as trl

    name, judge = str(start or model), resolve_verifier(verifier)
    options = policy_settings(method, settings, judged=judge is not None)
    if method == "sft":
        return trl.train_sft(name, data, out, options, seed=seed, report=report)
    if method == "dpo":
        return trl.train_dpo(name, data, out, options, seed=seed, report=report)
    return trl.train_grpo(name, data, out, options, verifier=judge, checker=GoldChecker(), seed=seed, report=report)


def prm_settings(objective: str, settings: Settings) -> "PRMSettings":
    """The settings of `prm_trainer`, and of the objective `loss`, `threshold` and `gamma`."""
    from .objectives import Objective
    from .prm_trainer import PRMSettings

    _known(objective, OBJECTIVES, "objective")
    inner = {name: settings[name] for name in ("loss", "threshold", "gamma") if name in settings}
    outer = {name: value for name, value in settings.items() if name not in inner}
    goal = Objective(objective, **inner)  # type: ignore[arg-type]
    return _settings(PRMSettings, {**outer, "objective": goal})


def policy_settings(method: str, settings: Settings, *, judged: bool) -> Any:
    """The settings of `policy_trainer` for a method; of GRPO's weights `process` and `outcome`.

    judged   there is a reward model, which counts unless `process` says otherwise
    """
    from . import policy_trainer as trl
    from .advantages import Weights

    _known(method, METHODS, "method")
    if method != "grpo":
        return _settings(trl.SFTSettings if method == "sft" else trl.DPOSettings, settings)
    given = dict(settings)
    weights = Weights(given.pop("process", 1.0 if judged else 0.0), given.pop("outcome", 1.0))
    return _settings(trl.GRPOSettings, {**given, "weights": weights})


def _learner(model: str, out: Path) -> Learner:
    out.mkdir(parents=True, exist_ok=True)
    return resolve_learner(model)


def _known(given: str, known: Sequence[str], what: str) -> None:
    if given not in known:
        raise ConfigurationError(f"{what} must be one of {', '.join(known)}; got {given!r}")


def _settings(kind: Any, given: Settings) -> Any:
    known = [each.name for each in fields(kind)]
    for name in given:
        if name not in known:
            raise ConfigurationError(f"there is no setting {name!r}; settings: {', '.join(known)}")
    return kind(**given)

"""From what a user writes to a policy, a verifier, a strategy: objects pass through, strings name an adapter.

``"embedded"`` and ``"openai:gpt-5-mini"`` are an adapter and what it is given. Adapters announce themselves in the
entry-point group ``o1_reason.adapters``: a module with ``policy(model)`` and ``verifier(model)``.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeVar
from urllib.parse import unquote

from .errors import ConfigurationError
from .protocols import Policy, Strategy, Verifier
from .strategies import STRATEGIES

GROUP = "o1_reason.adapters"
T = TypeVar("T")
_OBJECTS = ("client", "extract", "headers")  # settings that only Python can give


def adapters() -> list[str]:
    """Names of the installed adapters."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def _adapter(spec: str, role: str) -> Callable[[str], Any]:
    name = spec.partition(":")[0]
    for point in entry_points(group=GROUP):
        if point.name == name:
            try:
                module = point.load()
            except Exception as error:
                raise ConfigurationError(f"the adapter {name!r} ({point.value}) does not load: {error}") from error
            factory = getattr(module, role, None)
            if factory is None:
                raise ConfigurationError(f"the adapter {name!r} has no {role}")
            return factory
    raise ConfigurationError(f"no adapter {name!r} is installed; there are: {', '.join(adapters()) or 'none'}")


def read_name(text: str) -> tuple[str, dict[str, Any]]:
    """What an adapter is given, "MODEL?name=value&name=value", as the model and its settings.

    Values are JSON where they can be, text otherwise. Raises ConfigurationError for a setting without a value.
    """
    model, _, query = text.partition("?")
    settings: dict[str, Any] = {}
    for setting in filter(None, query.split("&")):
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{setting!r} is no setting; write NAME=VALUE, several joined by &")
        try:
            settings[name] = json.loads(unquote(value))
        except ValueError:
            settings[name] = unquote(value)
    return model, settings


def build(kind: Callable[..., T], settings: dict[str, Any], *arguments: Any, **given: Any) -> T:
    """`kind(*arguments, **given)` with those of `settings` that it has by keyword, which are taken out of them."""
    names = [name for name in _settings_of(kind) if name in settings and name not in given]
    return kind(*arguments, **given, **{name: settings.pop(name) for name in names})


def check_empty(settings: dict[str, Any], name: str, *kinds: Callable[..., Any], more: Sequence[str] = ()) -> None:
    """Raises ConfigurationError for settings that nothing has taken; tells what `kinds` would have, and `more`."""
    if settings:
        known = {*more, *(setting for kind in kinds for setting in _settings_of(kind))}
        raise ConfigurationError(f"{name} has no setting {', '.join(settings)}; settings: {', '.join(sorted(known))}")


def _settings_of(kind: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _OBJECTS]


def _resolve(given: object, role: str, method: str) -> Any:
    if isinstance(given, str):
        return _adapter(given, role)(given.partition(":")[2])
    if inspect.isclass(given):
        raise ConfigurationError(f"{role} is the class {given.__name__}; give an object: {given.__name__}()")
    if callable(getattr(given, method, None)):
        return given
    if hasattr(given, "agenerate_prompt") and hasattr(given, "bind_tools"):  # a LangChain chat model
        return _adapter("langchain", f"wrap_{role}")(given)  # type: ignore[arg-type]
    raise ConfigurationError(
        f"{role} must have a method {method!r}, or be the name of an adapter ({', '.join(adapters())}); got {given!r}"
    )


def resolve_policy(given: object) -> Policy:
    """Raises ConfigurationError for what is no policy and names none."""
    return _resolve(given, "policy", "propose")


def resolve_verifier(given: object | None) -> Verifier | None:
    """Raises ConfigurationError for what is no verifier and names none; None stays None."""
    return None if given is None else _resolve(given, "verifier", "score")


def resolve_strategy(given: object) -> Strategy:
    """Raises ConfigurationError for an unknown name or an object that is no strategy."""
    if isinstance(given, str):
        if given not in STRATEGIES:
            raise ConfigurationError(f"unknown strategy {given!r}; there are: {', '.join(STRATEGIES)}")
        return STRATEGIES[given]()
    if inspect.isclass(given) or not isinstance(given, Strategy):
        raise ConfigurationError(
            f"strategy must be a name ({', '.join(STRATEGIES)}) or an object with select, backup, done and answer; "
            f"got {given!r}"
        )
    return given

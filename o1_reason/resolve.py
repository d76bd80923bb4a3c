"""From what a user writes to a policy, a verifier, a strategy: objects pass through, strings name an adapter.

``"embedded"`` and ``"openai:gpt-5-mini"`` are an adapter and what it is given. Adapters announce themselves in the
entry-point group ``o1_reason.adapters``: a module with ``policy(model)`` and ``verifier(model)``.
"""

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from .errors import ConfigurationError
from .protocols import Policy, Strategy, Verifier
from .strategies import STRATEGIES

GROUP = "o1_reason.adapters"


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

"""A conversation as text for raw completions: by the user's template, or by the server that knows the model's own."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from o1_reason.chat import Message
from o1_reason.errors import ConfigurationError, ModelError
from o1_reason.receipt import Tally

from .endpoint import Endpoint

Template = Callable[[Sequence[Message]], str]
KEPT = 256  # conversations; a search has one


def plain(messages: Sequence[Message]) -> str:
    """The contents, each on lines of its own."""
    return "".join(f"{message['content']}".rstrip("\n") + "\n" for message in messages)


class Renderer:
    """Renders each conversation once, so that prompts of a search share their beginning to the byte.

    Without a template the server is asked: llama.cpp's ``/apply-template``, vLLM's ``/tokenize`` and ``/detokenize``.
    """

    def __init__(self, endpoint: Endpoint, model: str, template: Template | str | None) -> None:
        if isinstance(template, str) and template != "plain":
            raise ConfigurationError(f'template must be a function of the messages, or "plain"; got {template!r}')
        self._endpoint, self._model = endpoint, model
        self._template = plain if template == "plain" else template
        self.name = "by server" if self._template is None else getattr(self._template, "__qualname__", "template")
        self._known: OrderedDict[str, str] = OrderedDict()
        self.fields: dict[str, Any] = {}  # of requests with rendered prompts

    async def __call__(self, messages: Sequence[Message], tally: Tally) -> str:
        """Raises ConfigurationError where nobody can render."""
        if callable(self._template):
            return self._template(messages)
        key = repr(messages)
        if key not in self._known:
            self._known[key] = await self._ask(messages, tally)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return self._known[key]

    async def possible(self, tally: Tally) -> bool:
        """Whether a conversation can be rendered."""
        try:
            await self([{"role": "user", "content": "Hi."}], tally)
        except ConfigurationError:
            return False
        return True

    async def _ask(self, messages: Sequence[Message], tally: Tally) -> str:
        for ask in (self._apply_template, self._detokenized):
            try:
                text = await ask(messages, tally)
            except (ConfigurationError, ModelError):
                continue
            self.fields = {} if ask == self._apply_template else {"add_special_tokens": False}
            return text
        raise ConfigurationError(
            f"{self._endpoint.base_url} does not render conversations, so raw completions need template=...: a "
            'function of the messages, or "plain"'
        )

    async def _apply_template(self, messages: Sequence[Message], tally: Tally) -> str:
        reply = await self._endpoint.post("/apply-template", {"messages": list(messages)}, tally)
        return _field(reply, "prompt")

    async def _detokenized(self, messages: Sequence[Message], tally: Tally) -> str:
        body = {"model": self._model, "messages": list(messages), "add_generation_prompt": True}
        tokens = _field(await self._endpoint.post("/tokenize", body, tally), "tokens")
        reply = await self._endpoint.post("/detokenize", {"model": self._model, "tokens": tokens}, tally)
        return _field(reply, "prompt")


def _field(reply: Any, name: str) -> Any:
    if not isinstance(reply, dict) or not reply.get(name):
        raise ModelError(f"the server's reply has no {name!r}: {str(reply)[:200]}")
    return reply[name]

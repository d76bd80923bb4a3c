"""Whole turns of a LangChain chat model that may call tools, as the steps of a search.

A candidate is one finished turn: a text, or the tool calls that the model asks for. Candidates are compared before any
tool runs; calls that are equal, and texts whose answers are, vote together.
"""

import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, convert_to_messages
from langchain_core.runnables import RunnableBinding, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.function_calling import convert_to_openai_tool

from .answers import canonical, extract_answer
from .chat import Chat
from .errors import ConfigurationError
from .mdp import Proposals, State, Step, Usage
from .messages import plain
from .receipt import charge, take_call

T = TypeVar("T")
_CALLS = "tool calls\x00"  # keys of turns that call tools begin with it; no answer's key does
_CUT = ("length", "max_tokens", "MAX_TOKENS")


class TurnPolicy:
    """pi over the next turn: one call of `model` with `messages` for each candidate.

    The state's steps play no part, since a turn leaves nothing to go on with. A turn that the token limit cut, or whose
    tool call cannot be read, is no candidate.

    options  call options of the model: tools, tool_choice, stop ...
    chat     the adapter that `model` belongs to; its limit on calls in flight holds here, too
    """

    samples_per_call = 1  # so that candidates are scored as they come

    def __init__(
        self, model: BaseChatModel, messages: Sequence[BaseMessage], options: Mapping[str, Any], chat: Chat
    ) -> None:
        self.model = model
        self.chat = chat
        self._written = [plain(message) for message in messages]
        self._messages = convert_to_messages(self._written)
        self._options = dict(options)

    @classmethod
    def of(
        cls, policy: object, messages: Sequence[BaseMessage], options: dict[str, Any], **settings: Any
    ) -> "TurnPolicy":
        """Over the chat model of `policy`; `settings` are those of its fields to change, where it has them.

        Raises ConfigurationError for a policy that cannot call tools.
        """
        model, chat = tool_model(policy)
        fields = type(model).model_fields
        known = {name: value for name, value in settings.items() if value is not None and name in fields}
        return cls(model, messages, {**known, **options}, chat)

    @property
    def identity(self) -> str:
        asked = json.dumps([self._written, self._options], sort_keys=True, default=str)
        return f"turn({self.chat.identity})/{hashlib.sha256(asked.encode()).hexdigest()}"

    async def propose(
        self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None, seed: int | None = None
    ) -> Proposals:
        """Raises whatever the model raises."""
        if state.steps:
            return Proposals(())
        fields = type(self.model).model_fields
        drawn = {"temperature": temperature, "seed": None if seed is None else seed & 0x7FFFFFFF}
        options = {name: value for name, value in drawn.items() if value is not None and name in fields}
        message, usage = await call_model(
            self.chat, lambda config: self.model.ainvoke(self._messages, config, **{**self._options, **options})
        )
        step = step_of(message, usage.completion_tokens)
        return Proposals(((step,),) if step else (), usage)


async def call_model(chat: Chat, call: Callable[[RunnableConfig], Awaitable[AIMessage]]) -> tuple[AIMessage, Usage]:
    """One call within the limit of its adapter, paid for, silent in streams, in the trace of the run around it."""
    limit: Any = getattr(chat, "limit", None)
    epoch = await limit.acquire() if limit else 0
    try:
        take_call()
        charge(Usage(calls=1))
        config: RunnableConfig = ensure_config()
        config = {**config, "tags": [*(config.get("tags") or []), "nostream"], "run_name": "o1-reason call"}
        message = await call(config)
    except Exception as error:
        if limit and getattr(error, "status_code", None) == 429:
            limit.refused(epoch, None)
        raise
    finally:
        if limit:
            limit.release()
    if limit:
        limit.succeeded()
    told = message.usage_metadata
    usage = Usage(0, told["input_tokens"], told["output_tokens"]) if told else Usage()
    charge(usage)
    return message, usage + Usage(calls=1)


def step_of(message: AIMessage, tokens: int = 0) -> Step | None:
    """A turn as a finished step; None for one that is no candidate."""
    told = message.response_metadata
    cut = (told.get("finish_reason") or told.get("stop_reason") or told.get("done_reason")) in _CUT
    text = str(message.text)
    if cut or message.invalid_tool_calls or not (text.strip() or message.tool_calls):
        return None
    if not message.tool_calls:
        said = extract_answer(text)
        return Step(text, True, text, tokens=tokens, key=None if said is None else canonical(said))
    calls = [{"name": call["name"], "args": call["args"], "id": call["id"]} for call in message.tool_calls]
    bare = [{"name": call["name"], "args": call["args"]} for call in calls]
    shown = "\n".join([*([text] if text.strip() else []), *(f"{c['name']}({_json(c['args'])})" for c in bare)])
    answer = _json({"text": text, "tool_calls": calls})
    return Step(shown, True, answer, tokens=tokens, key=_CALLS + _json(sorted(bare, key=_json)))


def turn_of(step: Step) -> tuple[str, list[ToolCall]]:
    """The text and the tool calls of a turn that `step_of` made a step of."""
    answer = step.answer or ""
    if not (step.key or "").startswith(_CALLS):
        return answer, []
    turn = json.loads(answer)
    calls = [
        ToolCall(name=call["name"], args=call["args"], id=call["id"] or f"call_{uuid.uuid4().hex}", type="tool_call")
        for call in turn["tool_calls"]
    ]
    return turn["text"], calls


def _json(data: Any) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


def model_of(policy: object) -> tuple[BaseChatModel, Chat] | None:
    """The LangChain chat model behind a policy, and the adapter in between; None where there is none."""
    chat: Any = getattr(policy, "chat", None)
    model = getattr(chat, "model", None)
    return (model, chat) if isinstance(model, BaseChatModel) else None


def tool_model(policy: object) -> tuple[BaseChatModel, Chat]:
    """Raises ConfigurationError for a policy that cannot call tools."""
    found = model_of(policy)
    if found is None:
        raise ConfigurationError(
            f"tools need a policy over a LangChain chat model, and {type(policy).__name__} is none: give "
            'policy=ChatOpenAI(...) or another chat model, or the name "langchain:PROVIDER:MODEL"'
        )
    return found


def tool_options(policy: object, tools: Sequence[Any], tool_choice: Any, **options: Any) -> dict[str, Any]:
    """The call options by which the policy's own chat model is given `tools`, in its provider's form.

    Raises ConfigurationError for a policy that cannot call tools.
    """
    return bound_tools(tool_model(policy)[0], tools, tool_choice, **options)


def bound_tools(model: BaseChatModel, tools: Sequence[Any], tool_choice: Any, **options: Any) -> dict[str, Any]:
    """The call options by which `model` is given `tools`, in its provider's form.

    Raises ConfigurationError for a model that takes none.
    """
    chosen = options if tool_choice is None else {"tool_choice": tool_choice, **options}
    try:
        bound = model.bind_tools(tools, **chosen)
    except NotImplementedError as error:
        raise ConfigurationError(f"{type(model).__name__} takes no tools: give a chat model that does") from error
    if isinstance(bound, RunnableBinding) and isinstance(bound.bound, BaseChatModel):
        made = dict(bound.kwargs)
    elif isinstance(bound, BaseChatModel):
        made = dict(chosen)
    else:
        raise ConfigurationError(
            f"{type(model).__name__}.bind_tools gives a {type(bound).__name__}, which hides the model"
        )
    made.setdefault("tools", [tool if isinstance(tool, dict) else convert_to_openai_tool(tool) for tool in tools])
    return made

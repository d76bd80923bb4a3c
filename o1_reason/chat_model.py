"""`ChatReasoner`: a search behind LangChain's chat model interface."""

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import is_dataclass, replace
from operator import itemgetter
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, ValidationError

from .budget import Budget
from .engine import Event
from .errors import ConfigurationError
from .loop import Loop
from .messages import PROVIDER, asked
from .parts import resolve_parts
from .protocols import Policy
from .replying import Question
from .telling import Telling, last_piece, piece
from .tracing import inside, traced, with_finder
from .turns import TurnPolicy, model_of, tool_options

_PER_CALL = ("policy", "verifier", "strategy", "budget", "seed", "ledger", "temperature", "max_tokens", "timeout")


class ChatReasoner(BaseChatModel):
    """A chat model that searches for its answer: one line to swap in an app that uses LangChain.

    The last human message is the question, the other messages are context. `invoke` gives a message with the chosen
    reasoning as a content block, the answer as its text, the cost in `usage_metadata` and, in `response_metadata`,
    confidence and how the search ended. `stream` shows each step as a reasoning block as the search goes (`Telling`),
    and the answer at the end.

    policy, verifier  an object, a LangChain chat model, or an adapter's name such as ``"embedded"``
    strategy          an object, or a name such as ``"beam"``
    budget            a `Budget`, or a mapping of its fields
    ledger            a path (SQLite), a LangGraph store or a `Ledger`: no finished call is ever paid twice
    model_name        what it calls itself; not what begins with "o1"
    temperature       of candidates whose strategy asks for none, where the policy has such a setting
    max_tokens        of one reply of the policy's chat model, where it has one; the budget limits the search
    stop              the answer ends before the first of these
    timeout           seconds; the narrower one of it and ``budget.max_seconds`` holds
    max_retries       how often a search is begun again in which every call of a model failed

    A call may change any of policy, verifier, strategy, budget, seed, ledger, temperature, max_tokens, timeout and stop
    by keyword; ``model=NAME`` is another policy. `configurable_fields` works for all fields.

    Raises ConfigurationError for what cannot work; a call raises PolicyError or VerifierError if no call of the policy,
    or of the verifier, succeeded.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    policy: Any
    verifier: Any = None
    strategy: Any = "beam"
    budget: Any = Budget()
    seed: int = 0
    ledger: Any = None
    model_name: str = "reasoner/search"
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    timeout: float | None = None
    max_retries: int = 0
    streaming: bool | None = None

    def __init__(self, **settings: Any) -> None:
        settings.pop("api_key", None)  # LangChain's standard parameter; the models behind have keys of their own
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigurationError(f"ChatReasoner cannot be made so: {error}") from error
        self.policy, self.verifier, self.strategy = resolve_parts(
            self.policy, self.verifier, self.strategy, self.ledger
        )
        self.budget = _budget(self.budget)
        if self.model_name.startswith("o1"):
            raise ConfigurationError(
                f"model_name {self.model_name!r} begins with o1, which other software takes for a model of OpenAI's: "
                "choose another, such as reasoner/mine"
            )
        self.callbacks = with_finder(self.callbacks)
        if self.profile is None:
            model = model_of(self.policy)
            known: Any = (model[0].profile if model else None) or {}
            self.profile = ModelProfile(
                **{**known, "reasoning_output": True, "structured_output": False, "tool_calling": bool(model)}
            )

    @property
    def _llm_type(self) -> str:
        return "reasoner"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that an answer depends on: tracing shows it, and a response cache tells answers apart by it."""
        names = ("seed", "model_name", "temperature", "max_tokens", "stop", "timeout")
        return {
            "policy": getattr(self.policy, "identity", None) or repr(self.policy),
            "verifier": getattr(self.verifier, "identity", None) or repr(self.verifier),
            "strategy": repr(self.strategy),
            "budget": repr(self.budget),
            **{name: getattr(self, name) for name in names},
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return {**super()._get_ls_params(stop=stop or self.stop, **kwargs), "ls_provider": PROVIDER}

    # The four calls of LangChain's interface.

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        with Loop() as loop:
            return loop.run(self._agenerate(messages, stop, run_manager, **kwargs))

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        question = self._question(messages, stop, kwargs)
        message = await inside(traced(run_manager), question.answer)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        loop = Loop()
        chunks = self._astream(messages, stop, run_manager, **kwargs)

        async def following() -> ChatGenerationChunk | None:
            return await anext(chunks, None)

        async def end() -> None:
            await chunks.aclose()  # type: ignore[attr-defined]

        try:
            while (chunk := loop.run(following())) is not None:
                yield chunk
        finally:
            loop.close(end())

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        question = self._question(messages, stop, kwargs)
        telling = Telling()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        work = asyncio.ensure_future(inside(traced(run_manager), question.answer, events.put_nowait))
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                block = telling.block(event)
                if block is not None:
                    yield ChatGenerationChunk(message=piece(block))
            yield ChatGenerationChunk(message=last_piece(work.result(), telling.blocks))
        finally:  # a task of its own, so that it ends whatever becomes of the one that reads
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    # What LangChain builds on them.

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """A reasoner whose candidates are whole turns that may call `tools`; they are compared before any tool runs.

        The policy's own LangChain chat model is given the tools, in its provider's form. Raises ConfigurationError if
        the policy is not over such a model, or the model takes no tools.
        """
        return self.bind(**tool_options(self.policy, tools, tool_choice, **kwargs) if tools else {})

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """A reasoner whose answer has the form of `schema`: a Pydantic class, a TypedDict or a JSON schema.

        The search goes as without it. An answer that is such a JSON object is taken as it is; otherwise the policy's
        own chat model writes it in that form, in one more call. `method` and `strict` have no effect: the
        provider's own way is used. A call raises PolicyError where there is no such model, or it does not keep to the
        form, and OutputParserException where the object does not pass the Pydantic class.
        """
        unknown = sorted(set(kwargs) - {"method", "strict"})
        if unknown:
            raise ConfigurationError(f"with_structured_output does not know {', '.join(unknown)}; leave it out")
        told = {"kwargs": {"method": "json_schema"}, "schema": schema}
        model = self.bind(response_schema=convert_to_json_schema(schema), ls_structured_output_format=told)
        typed = isinstance(schema, type) and is_basemodel_subclass(schema)
        parser: Any = PydanticOutputParser(pydantic_object=schema) if typed else JsonOutputParser()  # type: ignore[arg-type]
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")

    def _question(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> Question:
        """Raises ConfigurationError for an option that nothing would read."""
        me = self._changed(options)
        options.pop("stream", None)  # LangChain's own
        schema = options.pop("response_schema", None)
        stops = list((me.stop if stop is None else stop) or ())
        text, context = asked(messages)
        lengths = {"step_tokens": me.max_tokens, "solution_tokens": me.max_tokens}
        policy: Policy = _tuned(me.policy, temperature=me.temperature, **lengths)
        if options.get("tools"):
            if schema is not None:
                raise ConfigurationError(
                    "an answer cannot both call tools and have the form of a schema: bind one of them"
                )
            options |= {"stop": stops} if stops else {}
            policy = TurnPolicy.of(me.policy, messages, options, temperature=me.temperature, max_tokens=me.max_tokens)
        elif options:
            raise ConfigurationError(
                f"ChatReasoner does not know the option {', '.join(options)}: set on the model behind it what "
                "that is to get"
            )
        limits = [limit for limit in (me.budget.max_seconds, me.timeout) if limit is not None]
        budget = replace(me.budget, max_seconds=min(limits)) if limits else me.budget
        return Question(
            text, context, policy, me.verifier, me.strategy, budget, me.seed, me.ledger, me.model_name,
            me.max_retries, stops, schema,
        )  # fmt: skip

    def _changed(self, options: dict[str, Any]) -> "ChatReasoner":
        """The reasoner as one call wants it; what it changes is taken out of `options`."""
        given = {name: options.pop(name) for name in _PER_CALL if name in options}
        if "model" in options:
            name = options.pop("model")
            given |= {"policy": name, "model_name": f"reasoner/{name}"}
        if not given:
            return self
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **given})


def _tuned(policy: Any, **settings: Any) -> Any:
    """`policy` with those of `settings` that are given and that it has."""
    changed = {name: value for name, value in settings.items() if value is not None and hasattr(policy, name)}
    if changed and is_dataclass(policy):
        return replace(policy, **changed)  # type: ignore[type-var]
    if changed:
        policy = copy.copy(policy)
        for name, value in changed.items():
            setattr(policy, name, value)
    return policy


def _budget(given: Any) -> Budget:
    if isinstance(given, Budget):
        return given
    try:
        return Budget(**given)
    except TypeError as error:
        raise ConfigurationError(f"budget must be a Budget, or a mapping of its fields; got {given!r}") from error

"""`Chat` over a causal model of `transformers` in this process."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from o1_reason.chat import Message, Reply, Sampling, prompt_bytes
from o1_reason.errors import ConfigurationError, ModelError
from o1_reason.mdp import NOTHING, Usage
from o1_reason.receipt import Tally

from .generate import Draw, Network, Shape, generate
from .loading import Local, as_error
from .prompts import end_ids, head_ids, text_ids


@dataclass(eq=False)
class _Job:
    """One call of `complete`, on its way through the model's thread."""

    messages: Sequence[Message]
    prefix: str
    sampling: Sampling
    future: "Future[list[Reply]]" = field(default_factory=Future)
    draws: list[Draw] = field(default_factory=list)
    stopped: bool = False

    @property
    def usage(self) -> Usage:
        """What it has cost so far."""
        if not self.draws:
            return NOTHING
        return Usage(1, len(self.draws[0].prompt), sum(len(draw.ids) for draw in self.draws))

    def stop(self) -> None:
        self.stopped = True
        for draw in self.draws:
            draw.stopped = True


class TransformersChat:
    """A model on this machine. It is loaded by the first call, and works in a thread of its own, a batch at a time.

    model      a name on the Hugging Face Hub, or a folder
    device     "auto": cuda where there is one, else cpu
    dtype      of the weights: "auto" (as they were saved), "float32", "bfloat16" or "float16"
    revision   branch, tag or commit on the Hub
    top_k, top_p, min_p
               what is cut off the distributions that are drawn from (`generate.Shape`); None: as the model's
               generation_config has it
    template   variables for its chat template, such as {"enable_thinking": false}. A model that has no template is
               shown the contents of the messages, a line each
    rows       the most replies in one batch; a call for more is served in several
    join       calls that wait are served in one batch, up to `rows`; by a rounding error a reply may then depend on the
               company it had

    Raises ConfigurationError for settings that cannot work.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        template: Mapping[str, Any] | None = None,
        rows: int = 64,
        join: bool = False,
    ) -> None:
        if rows < 1 or (top_k is not None and top_k < 0):
            raise ConfigurationError(f"rows must be at least 1, and top_k at least 0; got {rows} and {top_k}")
        for name, value in (("top_p", top_p), ("min_p", min_p)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigurationError(f"{name} must be in [0, 1], or None; got {value}")
        if template is not None and not isinstance(template, Mapping):
            raise ConfigurationError(f'template must be variables, as {{"enable_thinking": false}}; got {template!r}')
        self.local = Local(model, "CausalLM", device, dtype, revision)
        self.shape, self.template = Shape(top_k, top_p, min_p), dict(template or {})
        self.rows, self.join = rows, join
        self._waiting: deque[_Job] = deque()
        self._ratio = 0.0  # prompt tokens per byte, the most so far

    @property
    def identity(self) -> str:
        return f"transformers({self.local.identity}, {self.shape}, {json.dumps(self.template, sort_keys=True)})"

    async def continues(self) -> bool:
        return True

    def bound(self, messages: Sequence[Message], sampling: Sampling, prefix: str | None = None) -> Usage:
        """Prompt tokens are estimated: by the most tokens per byte so far, a token for each byte before that."""
        prompt = max(1, round((self._ratio * 1.05 or 1.0) * prompt_bytes(messages, prefix)))
        return Usage(1, prompt, sampling.n * (sampling.max_tokens or 0))

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        prefix: str | None = None,
    ) -> tuple[list[Reply], Usage]:
        """`sampling.n` replies; at temperature 0 one. The prompt is paid once, whatever the number of replies.

        A reply at the end of the model's context has `finish` "length". A call that is cancelled stops generating
        before the next token. Raises ConfigurationError for JSON schemas and tools, which this does not do.
        """
        if sampling.schema is not None or sampling.tools:
            raise ConfigurationError(
                "models in this process are held to no JSON schema and call no tools: serve the model with vLLM or "
                'SGLang, and name it "openai:MODEL?base_url=..."'
            )
        if sampling.temperature == 0:  # all would be the same
            sampling = replace(sampling, n=1)
        tally = Tally()
        job = _Job(list(messages), prefix or "", sampling)
        self._waiting.append(job)
        self.local.submit(self._serve)
        try:
            replies = await asyncio.wrap_future(job.future)
        finally:
            job.stop()
            tally.add(job.usage)
        self._ratio = max(self._ratio, tally.usage.prompt_tokens / prompt_bytes(messages, prefix))
        return replies, tally.usage

    # In the model's thread.

    def _serve(self) -> None:
        """The job that has waited longest, and those that go with it."""
        jobs = self._taken()
        try:
            if jobs:
                self._generate(jobs)
        except Exception as error:
            failed = as_error(error, self.local.name, f"give fewer rows than rows={self.rows}, or a smaller dtype")
            for job in jobs:
                if not job.future.done():
                    job.future.set_exception(failed)

    def _taken(self) -> list[_Job]:
        jobs: list[_Job] = []
        while self._waiting:
            if jobs and not (self.join and sum(job.sampling.n for job in (*jobs, self._waiting[0])) <= self.rows):
                break
            job = self._waiting.popleft()
            if job.future.set_running_or_notify_cancel():
                jobs.append(job)
        return jobs

    def _generate(self, jobs: Sequence[_Job]) -> None:
        network = self.network()
        ready = [job for job in jobs if self._prepared(job, network)]
        draws = [draw for job in ready for draw in job.draws]
        for at in range(0, len(draws), self.rows):
            generate(network, draws[at : at + self.rows])
        for job in ready:
            if not job.stopped:
                job.future.set_result([draw.reply(network) for draw in job.draws])

    def _prepared(self, job: _Job, network: Network) -> bool:
        """Whether it can be served; a job that cannot fails alone."""
        try:
            prompt = self.encode(network.tokenizer, job.messages, job.prefix)
            room = self._room(len(prompt), job, network)
        except (ConfigurationError, ModelError) as error:
            job.future.set_exception(error)
            return False
        seed = job.sampling.seed
        job.draws = [
            Draw(prompt, job.sampling, None if seed is None else seed + i, room) for i in range(job.sampling.n)
        ]
        return not job.stopped

    def _room(self, prompt: int, job: _Job, network: Network) -> int:
        """Tokens that a reply may have. A path that fills the context is at its end; a question that does, fails."""
        wanted, context = job.sampling.max_tokens, network.context
        if context is None:
            if wanted is None:
                raise ConfigurationError(f"{self.local.name} tells no context length; give max_tokens")
            return wanted
        if prompt >= context and not job.prefix:
            raise ModelError(f"a prompt of {prompt} tokens does not fit into the context of {context}; shorten it")
        return max(0, min(context - prompt, context if wanted is None else wanted))

    def encode(self, tokenizer: Any, messages: Sequence[Message], prefix: str) -> list[int]:
        """The prompt: the conversation, and what the assistant has said so far."""
        return head_ids(tokenizer, messages, self.template) + text_ids(tokenizer, prefix)

    def network(self) -> Network:
        """Raises ConfigurationError where the model cannot be loaded."""
        model, tokenizer = self.local.loaded()
        own, shape = model.generation_config, self.shape
        cut = {name: getattr(own, name, None) for name in ("top_k", "top_p", "min_p")}
        merged = Shape(
            **{name: value if (mine := getattr(shape, name)) is None else mine for name, value in cut.items()}
        )
        temperature = getattr(own, "temperature", None)
        return Network(model, tokenizer, end_ids(model, tokenizer), merged, 1.0 if temperature is None else temperature)

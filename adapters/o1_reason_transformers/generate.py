"""Sampling: replies to one prompt or several in one batch, each with a random stream of its own.

`transformers`' own ``generate`` draws all rows from one global stream, so that a reply would depend on those drawn
beside it.
"""

import inspect
import secrets
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from o1_reason.chat import Finish, Reply, Sampling, find_stop

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """What is cut off a distribution, in this order; None: nothing.

    top_k  all but the k likeliest tokens
    top_p  the unlikeliest, as long as the others have so much probability
    min_p  what has less than this share of the likeliest token's probability
    """

    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __call__(self, logits: "Tensor") -> "Tensor":
        if self.top_k:
            least = logits.topk(min(self.top_k, logits.shape[-1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, -float("inf"))
        if self.top_p is not None and self.top_p < 1:
            ranked, order = logits.softmax(-1).sort(-1, descending=True)
            beyond = ranked.cumsum(-1) - ranked >= self.top_p
            beyond[:, 0] = False
            logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -float("inf"))
        if self.min_p:
            shares = logits.softmax(-1)
            logits = logits.masked_fill(shares < self.min_p * shares.amax(-1, keepdim=True), -float("inf"))
        return logits


@dataclass(frozen=True, slots=True)
class Network:
    """A causal model with what sampling has to know of it."""

    model: Any
    tokenizer: Any
    ends: frozenset[int]
    shape: Shape
    temperature: float  # where none is asked for

    @property
    def cache(self) -> str:
        """How its forward pass calls the cache: older releases have another name."""
        known = inspect.signature(self.model.forward).parameters
        return "cache" if "cache" in known else "past_key_values"

    @property
    def context(self) -> int | None:
        """Tokens of a prompt and its reply, where the model tells."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def text(self, ids: Sequence[int], before: Sequence[int]) -> str:
        """What `ids` say after `before`. Some tokenizers drop a space at the beginning, so they are shown the last
        token before."""
        last = list(before[-1:])
        start, whole = (
            self.tokenizer.decode(part, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for part in (last, [*last, *ids])
        )
        return whole[len(start) :]


@dataclass(slots=True, eq=False)
class Draw:
    """A reply in the making. It has an end once `finish` is set; `text` then goes up to the stop string.

    seed      of its random stream; None: any
    room      the most tokens
    stopped   nobody waits for it any more
    """

    prompt: Sequence[int]
    sampling: Sampling
    seed: int | None
    room: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[Mapping[str, float]] = field(default_factory=list)
    text: str = ""
    finish: Finish | None = None
    stopped: bool = False
    generator: Any = None

    def uniform(self) -> float:
        """The next number in [0, 1) of its random stream."""
        import torch

        if self.generator is None:
            seed = secrets.randbits(62) if self.seed is None else self.seed
            self.generator = torch.Generator().manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
        return torch.rand((), generator=self.generator, dtype=torch.float64).item()

    def take(self, token: int, logprob: float, network: Network) -> None:
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token in network.ends:
            self.text, self.finish = network.text(self.ids[:-1], self.prompt), "end"
        elif (at := self._stop(network)) is not None:
            self.text, self.finish = network.text(self.ids, self.prompt)[:at], "stop"
        elif len(self.ids) >= self.room:
            self.text, self.finish = network.text(self.ids, self.prompt), "length"

    def _stop(self, network: Network) -> int | None:
        """Where the text ends, if a stop string was met. The last tokens tell whether to look."""
        stop = self.sampling.stop
        if not stop:
            return None
        few = 4 * max(map(len, stop)) + 4  # a character has four bytes at the most, and a token one at the least
        tail = network.text(self.ids[-few:], self.ids[:-few] or self.prompt)
        if not any(word in tail for word in stop):
            return None
        return find_stop(network.text(self.ids, self.prompt), stop)

    def reply(self, network: Network) -> Reply:
        """`logprob` is of the tokens that make up the text; of all, where there is no text."""
        sizes = range(len(self.ids) + 1)
        size = bisect_left(sizes, len(self.text), key=lambda n: len(network.text(self.ids[:n], self.prompt)))
        counted = self.logprobs[:size] or self.logprobs
        mean = sum(counted) / len(counted) if counted else None
        return Reply(self.text, self.finish or "length", len(self.ids), mean, tuple(self.tops[:size]))


def generate(network: Network, draws: Sequence[Draw]) -> None:
    """Bring all draws to their ends, side by side. Each prompt is read once, and stopped draws are left out."""
    import torch

    with torch.inference_mode():
        live = [draw for draw in draws if draw.room > 0 and not draw.stopped]
        if not live:
            return
        logits, cache, mask = _read(network, live)
        while live:
            tokens = _choose(network, logits, live)
            keep = [i for i, draw in enumerate(live) if draw.finish is None and not draw.stopped]
            if not keep:
                return
            if len(keep) < len(live):
                rows = torch.tensor(keep, device=tokens.device)
                cache.batch_select_indices(rows)
                live, tokens, mask = [live[i] for i in keep], tokens[rows], mask[rows]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)
            logits = _forward(network, tokens[:, None], mask, cache)


def _read(network: Network, draws: Sequence[Draw]) -> tuple["Tensor", Any, "Tensor"]:
    """The logits after each draw's prompt, the cache and the attention mask, a row for each draw."""
    import torch
    from transformers import DynamicCache

    prompts = list({id(draw.prompt): draw.prompt for draw in draws}.values())
    places = {id(prompt): i for i, prompt in enumerate(prompts)}
    length, device = max(map(len, prompts)), network.model.device
    blank = next(iter(network.ends), 0)
    ids = torch.tensor([[blank] * (length - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    cache = DynamicCache(config=network.model.config.get_text_config())
    logits = _forward(network, ids, mask, cache)
    rows = torch.tensor([places[id(draw.prompt)] for draw in draws], device=device)
    cache.batch_select_indices(rows)
    return logits[rows], cache, mask[rows]


def _forward(network: Network, ids: "Tensor", mask: "Tensor", cache: Any) -> "Tensor":
    """The logits after the last token of each row; `cache` grows by `ids`."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = network.model(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1,
        **{network.cache: cache},
    )  # fmt: skip
    return out.logits[:, -1].float()


def _choose(network: Network, logits: "Tensor", draws: Sequence[Draw]) -> "Tensor":
    """The next token of each draw, which takes it: the likeliest at temperature 0, else by its own random stream."""
    import torch

    asked = [network.temperature if (t := draw.sampling.temperature) is None else t for draw in draws]
    hot = [i for i, temperature in enumerate(asked) if temperature > 0]
    logs, tokens = logits.log_softmax(-1), logits.argmax(-1)
    if hot:
        rows = torch.tensor(hot, device=logits.device)
        heat = torch.tensor([asked[i] for i in hot], device=logits.device)
        sums = network.shape(logits[rows] / heat[:, None]).softmax(-1).double().cumsum(-1)
        places = torch.tensor([draws[i].uniform() for i in hot], dtype=torch.float64, device=logits.device)
        drawn = torch.searchsorted(sums, places[:, None] * sums[:, -1:], right=True)[:, 0]
        tokens[rows] = drawn.clamp(max=logits.shape[-1] - 1)
    chosen = logs.gather(-1, tokens[:, None])[:, 0].tolist()
    for i, (draw, token, logprob) in enumerate(zip(draws, tokens.tolist(), chosen, strict=True)):
        if draw.sampling.top_logprobs:
            best = logs[i].topk(min(draw.sampling.top_logprobs, logs.shape[-1]))
            names = (network.tokenizer.decode([at]) for at in best.indices.tolist())
            draw.tops.append(dict(zip(names, best.values.tolist(), strict=True)))
        draw.take(token, logprob, network)
    return tokens

"""Process reward models with a head of two classes, in this process: what `o1_reason.learn.prm_trainer` trains."""

import asyncio
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from o1_reason.errors import ConfigurationError, UnjudgedError, VerifierError
from o1_reason.mdp import NOTHING, Score, State, Usage
from o1_reason.receipt import Tally

from .loading import Local, as_error

if TYPE_CHECKING:
    from o1_reason.learn.prm_data import Encoder, Format

Path = tuple[list[int], list[int]]  # token ids, and where the scores of the steps stand


class TransformersPRM:
    """One reward per step: the probability of class 1 at the last token of the step's mark.

    model       a folder or a name with a token-classification head of two labels
    format      how it is asked, as in training: "trl" (question and steps, a line each), another name of
                `o1_reason_openai.prm_formats` whose models have classes, or a `Format`
    device, dtype, revision
                as `TransformersChat` has them
    max_length  tokens of a path; None: as many as the model takes
    rows        paths in one batch
    step_tokens, solution_tokens
                the most tokens of a step and of a whole solution: with the first `bound` tells what a call will cost,
                as far as the tokens per byte are known; without it a search goes by the dearest call so far
    """

    def __init__(
        self,
        model: str,
        *,
        format: "Format | str" = "trl",
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        max_length: int | None = None,
        rows: int = 32,
        step_tokens: int | None = None,
        solution_tokens: int | None = None,
    ) -> None:
        if min(rows, max_length or 1, step_tokens or 1, solution_tokens or 1) < 1:
            raise ConfigurationError("rows, max_length, step_tokens and solution_tokens must be at least 1")
        self.local = Local(model, "TokenClassification", device, dtype, revision)
        self.format = find_format(format)
        self.max_length, self.rows = max_length, rows
        self.step_tokens, self.solution_tokens = step_tokens, solution_tokens
        self.bound = self._bound if step_tokens else None
        self._ratio = 0.0  # tokens per byte, the most so far

    @property
    def identity(self) -> str:
        return f"transformers.prm({self.local.identity}, {self.format!r}, {self.max_length})"

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        """Raises UnjudgedError where some paths do not fit into the model or have nothing to score, ConfigurationError
        for what is no such model, ModelError for one that fails. A call that is cancelled ends after its batch."""
        tally, stop = Tally(), threading.Event()
        read: list[int] = []  # tokens of the batches so far
        try:
            found = await asyncio.wrap_future(self.local.submit(self._score, list(states), stop, read))
        finally:
            stop.set()
            tally.add(Usage(1, sum(read)) if read else NOTHING)
        self._ratio = max(self._ratio, tally.usage.prompt_tokens / max(1, sum(map(self._bytes, states))))
        scored = [i for i, rewards in enumerate(found) if not isinstance(rewards, str)]
        scores = [
            None if isinstance(rewards, str) else Score(rewards, usage=tally.usage if i == scored[0] else NOTHING)
            for i, rewards in enumerate(found)
        ]  # the first one carries the cost of all
        if len(scored) < len(found):
            whys = list(dict.fromkeys(why for why in found if isinstance(why, str)))
            raise UnjudgedError(
                f"no score for {len(found) - len(scored)} of {len(found)} paths: {'; '.join(whys[:3])}", scores
            )
        return [score for score in scores if score is not None]

    def _bound(self, state: State, n: int, max_steps: int) -> Usage:
        """What scoring `n` continuations costs; a mark has no more tokens than what ended the step."""
        assert self.step_tokens is not None
        more = self.step_tokens if max_steps == 1 else self.solution_tokens or max_steps * self.step_tokens
        length = math.ceil((self._ratio * 1.05 or 1.0) * self._bytes(state)) + more + 1
        return Usage(1, n * min(length, self.max_length or length))

    def _bytes(self, state: State) -> int:
        pieces = self.format.pieces(state.question, [step.text for step in state.steps])
        return len(("".join(pieces) + self.format.tail).encode())

    # In the model's thread.

    def _score(self, states: Sequence[State], stop: threading.Event, read: list[int]) -> list[tuple[float, ...] | str]:
        """The rewards of each state, or why it has none."""
        try:
            encode = self._encoder()
            found = [_path(encode, state) for state in states]
            paths = {i: path for i, path in enumerate(found) if not isinstance(path, str)}
            order = sorted(paths, key=lambda i: len(paths[i][0]))  # paths of about the same length go together
            rewards: dict[int, tuple[float, ...]] = {}
            for at in range(0, len(order), self.rows):
                if stop.is_set():
                    break
                batch = order[at : at + self.rows]
                read.append(sum(len(paths[i][0]) for i in batch))
                rewards.update(zip(batch, self._read([paths[i] for i in batch]), strict=True))
            return [path if isinstance(path, str) else rewards.get(i, ()) for i, path in enumerate(found)]
        except Exception as error:
            raise as_error(error, self.local.name, f"give fewer rows than rows={self.rows}") from error

    def _encoder(self) -> "Encoder":
        from o1_reason.learn.prm_data import Encoder

        model, tokenizer = self.local.loaded()
        trained = [*(model.config.architectures or ()), type(model).__name__]
        if model.config.num_labels != 2 or not trained[0].endswith("ForTokenClassification"):
            raise ConfigurationError(
                f"{self.local.name!r} is a {trained[0]} with {model.config.num_labels} labels; a reward model has a "
                "token-classification head of two; o1-reason train prm trains one, "
                '"openai:MODEL?as=prm&base_url=..." names one of another kind behind vLLM'
            )
        most = self.max_length or getattr(model.config.get_text_config(), "max_position_embeddings", None)
        return Encoder(tokenizer, self.format, most or tokenizer.model_max_length)

    def _read(self, paths: Sequence[Path]) -> list[tuple[float, ...]]:
        import torch

        model, tokenizer = self.local.loaded()
        length, pad = max(len(ids) for ids, _ in paths), tokenizer.pad_token_id or 0
        ids = [ids + [pad] * (length - len(ids)) for ids, _ in paths]
        mask = [[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in paths]
        with torch.inference_mode():
            logits = model(
                input_ids=torch.tensor(ids, device=model.device), attention_mask=torch.tensor(mask, device=model.device)
            ).logits
            right = logits.float().softmax(-1)[..., 1].cpu()
        return [tuple(row[marks].tolist()) for row, (_, marks) in zip(right, paths, strict=True)]


def find_format(format: "Format | str") -> "Format":
    """Raises ConfigurationError for a name that no format has, and for a format whose models have no classes."""
    from o1_reason.learn.prm_data import Lines

    if not isinstance(format, str):
        return format
    if format == "trl":
        return Lines()
    from o1_reason_openai.prm_formats import find_format as find

    found = find("", format)
    if found.reads != "classes":
        raise ConfigurationError(
            f"models of the format {format!r} have no classes; serve one with vLLM, and name it "
            f'"openai:MODEL?as=prm&format={format}&base_url=..."'
        )
    return found


def _path(encode: "Encoder", state: State) -> Path | str:
    if not state.steps:
        return "a process reward model scores steps, and the state has none"
    try:
        ids, marks = encode(state.question, [step.text for step in state.steps])
    except VerifierError as error:
        return str(error)
    if len(marks) < len(state.steps):
        return (
            f"of {len(state.steps)} steps ({state.question[:60]!r} ...) only {len(marks)} fit into the reward model's "
            f"{encode.max_length} tokens: search less deep, or raise max_length where the model takes more"
        )
    return ids, marks

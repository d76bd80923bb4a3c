"""Process reward models behind HTTP: vLLM's pooling and scoring, SGLang's scoring, raw completions."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from o1_reason.errors import ConfigurationError, UnjudgedError, VerifierError
from o1_reason.mdp import NOTHING, Score, State, Usage
from o1_reason.receipt import Tally, more_calls
from o1_reason.together import together

from .endpoint import Endpoint
from .prm_formats import PRMFormat, Route, find_format
from .prm_wire import PATHS, SERVED, labels_body, read_labels, read_rows, row_score, rows_body, usage_of

Tokenize = Callable[[str, bool], Sequence[int]]  # text, with the special tokens that begin a prompt or without -> ids
Path = tuple[str, list[str]]  # question and steps as they go into the prompt
Rewards = list[float] | str  # of one path; or why it has none
T = TypeVar("T")


class RemotePRM:
    """One reward per step. All states of a call go into one request.

    format       a `PRMFormat`, or the name of one; None: the one that belongs to the model's name
    route        how the server is asked; None: the usual one of the format. "generative_scoring" (vLLM), "score"
                 (SGLang) and "completions" (vLLM) read labels and use the server's prefix cache, "pooling" does not
    tokenize     ``(text, special) -> ids`` by the model's own tokenizer, with its special tokens if `special`. With it
                 the positions of the scores are checked before anything is sent; without it the server's /tokenize
                 is asked where token ids are needed
    context      tokens that the server takes in a prompt and a reply; None: asked from its /tokenize where a prompt
                 that is too long would be cut in silence
    step_tokens  the most tokens of a step: with it `bound` tells what a call will cost, as far as the server's
                 tokens per byte are known; without it a search goes by the dearest call so far
    memory       scores that are remembered, so that a path's earlier steps are not scored again with each new one
                 ("labels" only: the other formats give all scores of a path at once)
    """

    def __init__(
        self,
        model: str,
        endpoint: Endpoint | None = None,
        *,
        format: PRMFormat | str | None = None,
        route: Route | None = None,
        tokenize: Tokenize | None = None,
        context: int | None = None,
        step_tokens: int | None = None,
        memory: int = 65_536,
    ) -> None:
        form = format if isinstance(format, PRMFormat) else find_format(model, format)
        if not form.routes:
            raise ConfigurationError(f"the model {model!r} writes its judgement ({form.name}): use GenerativePRM")
        if route is not None and route not in form.routes:
            raise ConfigurationError(f"a {form.name} model is asked by {' or '.join(form.routes)}; got route={route!r}")
        if min(memory, context or 1, step_tokens or 1) < 1:
            raise ConfigurationError("memory, context and step_tokens must be at least 1")
        self.model, self.format, self.tokenize, self.context = model, form, tokenize, context
        self.endpoint = endpoint or Endpoint()
        self.route: Route = route or form.routes[0]
        self.step_tokens = step_tokens
        self.bound = self._bound if step_tokens else None
        self._scores: dict[bytes, float] = {}  # by a digest of the prompt; oldest first
        self._ids: dict[str, list[int]] = {}  # of pieces; oldest first
        self._memory = memory
        self._ratio = 0.0  # prompt tokens per byte, the most so far

    @property
    def identity(self) -> str:
        record = hashlib.sha256(repr(self.format).encode()).hexdigest()[:12]
        return f"prm({self.endpoint.identity}, {self.model}, {self.route}, {self.format.name}/{record})"

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        """Raises VerifierError for a reply that is not what was asked for, UnjudgedError, which is one, where only some
        paths cannot be scored, ConfigurationError for a server that does not do this, ModelError for one that fails."""
        tally = Tally()
        found: dict[int, Score | str] = {}
        paths: dict[int, Path] = {}
        for i, state in enumerate(states):
            try:
                paths[i] = self.format.clean(state.question, state.steps)
            except VerifierError as error:
                found[i] = str(error)
        if paths:
            ask = self._labels if self.format.reads == "labels" else self._rows
            rewards = await ask(list(paths.values()), tally)
            usage = tally.usage
            for i, row in zip(paths, rewards, strict=True):
                found[i] = row if isinstance(row, str) else Score(tuple(row), usage=usage)
                usage = usage if isinstance(row, str) else NOTHING  # the first score carries the cost of all
        return all_scored([found[i] for i in range(len(states))])

    async def _ask(self, body: dict[str, Any], tally: Tally) -> Any:
        reply = await self._post(PATHS[self.route], body, tally, SERVED[self.route])
        tally.add(usage_of(reply))
        return reply

    async def _post(self, path: str, body: dict[str, Any], tally: Tally, hint: str) -> Any:
        try:
            return await self.endpoint.post(path, body, tally)
        except ConfigurationError as error:
            if getattr(error.__cause__, "status_code", None) in (401, 403):
                raise
            raise ConfigurationError(f"{error}; {hint}") from error

    # Formats whose server gives a row for each mark, or for each token.

    async def _rows(self, paths: list[Path], tally: Tally) -> list[Rewards]:
        form = self.format
        marks: list[Sequence[int] | None] = [None] * len(paths)  # where the scores stand, if rows are tokens
        if form.rows == "tokens":
            cut = await self._cut(paths, tally)
            inputs: list[Any] = [ids for ids, _ in cut]
            marks = [at for _, at in cut]
        else:
            inputs = [form.text(*path) for path in paths]
            self._check(inputs, paths)
        reply = await self._ask(rows_body(self.route, self.model, form, inputs), tally)
        self._whole(reply, [form.text(*path) for path in paths], inputs)
        found = read_rows(self.route, reply, len(paths))
        return [
            self._row_scores(rows, len(ids), at, len(steps))
            for rows, ids, at, (_, steps) in zip(found, inputs, marks, paths, strict=True)
        ]

    def _row_scores(self, rows: list[Any], size: int, marks: Sequence[int] | None, steps: int) -> Rewards:
        if marks is None and len(rows) != steps:
            return (
                f"{steps} steps, but {len(rows)} scores: the server must give one for each {self.format.mark!r} (vLLM: "
                f'--pooler-config \'{{"pooling_type":"STEP","step_tag_id":{[*self.format.mark_ids, "ID"][0]}}}\'), '
                "and no step may contain one"
            )
        if marks is not None and len(rows) != size:
            return (
                f"{size} tokens, but {len(rows)} rows: the server must give one for each token (vLLM: "
                '--pooler-config \'{"pooling_type":"ALL"}\') and not cut the prompt'
            )
        return [row_score(self.format, row) for row in (rows if marks is None else [rows[i] for i in marks])]

    async def _cut(self, paths: list[Path], tally: Tally) -> list[tuple[list[int], list[int]]]:
        """Token ids of each path, and in them the last token of each mark. Pieces are tokenized by themselves."""
        form = self.format
        pieces = [form.pieces(*path) for path in paths]
        wanted = {(piece, i == 0 and form.special_tokens) for row in pieces for i, piece in enumerate(row)}
        if form.mark_ids:
            wanted.discard((form.mark, False))
        ids = await self._tokens(sorted(wanted), tally)
        if form.mark_ids:
            ids[form.mark, False] = list(form.mark_ids)
        found: list[tuple[list[int], list[int]]] = []
        for row in pieces:
            whole: list[int] = []
            marks: list[int] = []
            for i, piece in enumerate(row):
                whole += ids[piece, i == 0 and form.special_tokens]
                if i and i % 2 == 0:
                    marks.append(len(whole) - 1)
            found.append((whole, marks))
        return found

    def _whole(self, reply: Any, texts: list[str], sent: list[Any]) -> None:
        """Remember tokens per byte; raise VerifierError if the server read fewer token ids than it was sent."""
        used = usage_of(reply).prompt_tokens
        self._ratio = max(self._ratio, used / sum(len(text.encode()) for text in texts))
        size = sum(len(ids) for ids in sent if not isinstance(ids, str))
        if 0 < used < size:
            raise VerifierError(f"the server read {used} of {size} tokens: it cuts prompts; give it a longer context")

    # Formats that read a label at the end of the prompt: one prompt for each step.

    async def _labels(self, paths: list[Path], tally: Tally) -> list[Rewards]:
        prompts = [self.format.prefixes(*path) for path in paths]
        scores = {text: known for text in _flat(prompts) if (known := self._scores.get(_digest(text))) is not None}
        ends = [row[-1] for row in prompts if row[-1] not in scores]
        self._check(ends, None)
        cut = await self._cut_short(ends, tally) if ends and self.route == "generative_scoring" else {}
        kept = [row for row in prompts if row[-1] not in cut]
        missing = [text for text in _flat(kept) if text not in scores]
        if missing:
            reply = await self._ask(labels_body(self.route, self.model, self.format, missing), tally)
            found = read_labels(self.route, reply, self.format, len(missing))
            self._whole(reply, missing, missing)
            scores.update(zip(missing, found, strict=True))
        for text, score in scores.items():  # what was needed now comes last to be forgotten
            _keep(self._scores, _digest(text), score, self._memory)
        return [cut.get(row[-1]) or [scores[text] for text in row] for row in prompts]

    async def _cut_short(self, texts: list[str], tally: Tally) -> dict[str, str]:
        """Which of these prompts vLLM would cut, at their ends, where the newest step is; and how to put that. A prompt
        that fits has beginnings that do."""
        special = self.format.special_tokens
        if self.context is None:
            reply = await self._tokenized(texts[0], special, tally)
            if not isinstance(limit := reply.get("max_model_len"), int):
                raise ConfigurationError("the server's /tokenize does not tell max_model_len; give context=...")
            self.context = limit
        near = [text for text in texts if len(text.encode()) + 2 >= self.context]  # no token is less than a byte
        sizes = await self._tokens([(text, special) for text in near], tally) if near else {}
        return {
            text: f"a path of {len(ids)} tokens ({text[:60]!r} ...) does not fit into the reward model's context of "
            f"{self.context}: serve it with a longer one, or search less deep"
            for (text, _), ids in sizes.items()
            if len(ids) >= self.context
        }

    # Tokens.

    def _check(self, texts: list[str], paths: list[Path] | None) -> None:
        """With the model's tokenizer at hand: is there a mark for each step of the paths, or one at the very end?"""
        form = self.format
        if self.tokenize is None or not form.mark_ids:
            return
        for i, text in enumerate(texts):
            ids = list(self.tokenize(text, form.special_tokens))
            at = form.positions(ids)
            if (len(at) != len(paths[i][1])) if paths else (at[-1:] != [len(ids) - 1]):
                raise VerifierError(
                    f"in {text[-80:]!r} the mark {list(form.mark_ids)} is not the token that it should be: is this the "
                    f"tokenizer of {self.model!r}, and {form.name} its format?"
                )

    async def _tokens(self, wanted: list[tuple[str, bool]], tally: Tally) -> dict[tuple[str, bool], list[int]]:
        if self.tokenize is not None:
            return {(text, special): list(self.tokenize(text, special)) for text, special in wanted}
        known = {key: self._ids[f"{key[1]:d}{key[0]}"] for key in wanted if f"{key[1]:d}{key[0]}" in self._ids}
        missing = [key for key in wanted if key not in known]
        replies = await together(self._tokenized(*key, tally) for key in missing)
        for key, reply in zip(missing, replies, strict=True):
            known[key] = reply["tokens"]
        for (text, special), ids in known.items():
            _keep(self._ids, f"{special:d}{text}", ids, self._memory // 16)
        return known

    async def _tokenized(self, text: str, special: bool, tally: Tally) -> dict[str, Any]:
        """The server's /tokenize, which vLLM and SGLang have."""
        if not more_calls(1):
            raise VerifierError("no call is left in the budget to have a prompt tokenized; give RemotePRM tokenize=...")
        body = {"model": self.model, "prompt": text, "add_special_tokens": special}
        reply = await self._post(
            "/tokenize", body, tally, "vLLM and SGLang have /tokenize; give tokenize=... elsewhere"
        )
        tokens = reply.get("tokens") if isinstance(reply, dict) else None
        if not isinstance(tokens, list) or not all(isinstance(i, int) for i in tokens):
            raise VerifierError(f"the server's /tokenize gave no token ids: {str(reply)[:200]}; give tokenize=...")
        return reply

    # Cost.

    def _bound(self, state: State, n: int, max_steps: int) -> Usage:
        """What scoring `n` continuations costs if none of their steps has more than `step_tokens` tokens."""
        form, ratio = self.format, self._ratio * 1.05 or 1.0
        around = len(f"{form.between}{form.mark}{'Step 999: ' * form.numbered}".encode())
        here = len(f"{form.head}{form.tail}{state.question}".encode())
        here += sum(len(step.text.encode()) + around for step in state.steps)
        lengths = [ratio * (here + k * around) + k * (self.step_tokens or 0) for k in range(1, max_steps + 1)]
        lengths = [min(math.ceil(length), self.context or math.ceil(length)) for length in lengths]
        if form.reads != "labels":
            return Usage(1, n * lengths[-1])
        return Usage(1, n * sum(lengths), 0 if self.route == "score" else n * max_steps)


def all_scored(found: Sequence[Score | str]) -> list[Score]:
    """The scores. Raises UnjudgedError if a path has none, but the reason for that instead."""
    scores = [score for score in found if isinstance(score, Score)]
    if len(scores) < len(found):
        whys = list(dict.fromkeys(why for why in found if isinstance(why, str)))
        raise UnjudgedError(
            f"no score for {len(found) - len(scores)} of {len(found)} paths: {'; '.join(whys[:3])}",
            [score if isinstance(score, Score) else None for score in found],
        )
    return scores


def _flat(rows: Sequence[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(text for row in rows for text in row))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _keep(memory: dict[Any, T], key: Any, value: T, most: int) -> None:
    """`value` under `key`, as the youngest of at most `most` entries."""
    memory.pop(key, None)
    memory[key] = value
    while len(memory) > max(most, 1):
        del memory[next(iter(memory))]

"""Typed questions that a server answers with probabilities, as process reward model or outcome verifier.

Two requests for the same thing:

api "decisions"   POST /v1/decisions of OpenAI (``{"input", "questions": [{"type": "predicate", ...}]}``), and of vLLM
                  from 0.33 on
api "systemone"   POST /v1/systemone of vLLM, SGLang, `transformers serve` (``{"state", "questions": {"name": {"type":
                  "noul", ...}}}``). SGLang's own /v1/decisions has a third form: use this one there.

Checked against the types of OpenAI's SDK (3.57) and against Transformers' decision pipeline (5.24), not against the
hosted service.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import openai
from openai import AsyncOpenAI

from o1_reason.errors import ConfigurationError, UnjudgedError, VerifierError
from o1_reason.mdp import NOTHING, Score, State, Usage
from o1_reason.receipt import Tally, more_calls
from o1_reason.together import together
from o1_reason.verifiers.critics.judge import continuations
from o1_reason.verifiers.critics.prompts import END, RULES, cache_key, problem, steps

from .endpoint import Endpoint
from .wire import Price, usage_of

Api = Literal["decisions", "systemone"]
_ROUNDING = 1e-6  # that a server's softmax may be off

STEP = "Step {} of the quoted solution is correct, taking the steps before it as given"
LAST = (
    "Step {} of the quoted solution is correct, and so is the final answer in it, taking the steps before it as given"
)
FINISHED = "All steps of the quoted solution and its final answer are correct"
UNFINISHED = "All steps of the quoted solution so far are correct, and a correct answer can be reached from there"


class Decisions:
    """P(correct) of each step, or of the whole, one request a path.

    per_step    one reward for each step; False: one for the state as a whole
    criteria    further criteria, trusted as written
    questions   in one request at the most: OpenAI takes 400, vLLM and `transformers serve` 64
    extra       further fields of each request
    price       for `Usage.cost_usd`; None: unknown
    step_tokens the length of a step that is not written yet, for `bound`

    `score` raises UnjudgedError, a VerifierError, where the model refuses an answer; VerifierError if the answers are
    not those to the questions; ConfigurationError and ModelError as `Endpoint.post`.
    """

    def __init__(
        self,
        model: str,
        endpoint: Endpoint | AsyncOpenAI | None = None,
        *,
        api: Api = "decisions",
        per_step: bool = True,
        criteria: str | None = None,
        questions: int = 64,
        extra: Mapping[str, Any] | None = None,
        price: Price | None = None,
        step_tokens: int = 256,
    ) -> None:
        if not model:
            raise ConfigurationError('which model? For example "gpt-6-luna"')
        if api not in get_args(Api):
            raise ConfigurationError(f"api must be one of {', '.join(get_args(Api))}; got {api!r}")
        if questions < 1 or step_tokens < 1:
            raise ConfigurationError("questions and step_tokens must be at least 1")
        self.model, self.api, self.per_step, self.criteria = model, api, per_step, criteria
        self.endpoint = Endpoint(client=endpoint) if isinstance(endpoint, AsyncOpenAI) else endpoint or Endpoint()
        self.questions, self.extra, self.price, self.step_tokens = questions, dict(extra or {}), price, step_tokens
        self._keyed = api == "decisions"  # requests carry a cache key, until the server refuses it
        self._ratio = 0.0  # prompt tokens per byte and question, the most so far

    @property
    def identity(self) -> str:
        asked = f"{RULES}{END}{STEP}{LAST}{FINISHED}{UNFINISHED}{self.criteria}"
        digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
        extra = json.dumps(self.extra, sort_keys=True)
        kind = f"{self.api}, per step {self.per_step}"
        return f"decisions({self.endpoint.identity}, {self.model}, {kind}, {extra}, prompt {digest})"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """The most that scoring `n` continuations costs if every request succeeds at once. Prompt tokens are
        estimated by the most per byte and question so far, one for each byte before that."""
        total = NOTHING
        for guess in continuations(state, n, max_steps, self.step_tokens):
            asked, text = len(self._asked(guess)), _input(guess)
            tokens = round((self._ratio * 1.05 or 1.0) * len(text.encode()) * asked)
            requests = Usage(calls=-(-asked // self.questions))
            total += requests + usage_of(tokens, 0, 0, self.price)
        return total

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        judged = await together(self._judge(state) for state in states)
        refused = [name for name, score in judged if score is None]
        scores = [score for _, score in judged]
        if refused:
            raise UnjudgedError(
                f"{self.model} refused to answer on {len(refused)} of {len(states)} states (first on {refused[0]!r}); "
                "rephrase the criteria, or use another model",
                scores,
            )
        return [score for score in scores if score is not None]

    async def _judge(self, state: State) -> tuple[str, Score | None]:
        """The score of one state; None if an answer was refused, and the name of its question."""
        tally = Tally()
        asked = list(self._asked(state).items())
        parts = [dict(asked[i : i + self.questions]) for i in range(0, len(asked), self.questions)]
        answers = await together(self._ask(state, part, tally) for part in parts)
        chances = {name: chance for part in answers for name, chance in part.items()}
        for name, chance in chances.items():
            if chance is None:
                return name, None
        return "", Score(tuple(chances.values()), usage=tally.usage)  # type: ignore[arg-type]

    def _asked(self, state: State) -> dict[str, str]:
        """Names of the questions, and what is to be true."""
        more = f". Further criteria: {self.criteria}" if self.criteria else "."
        if not (self.per_step and state.steps):
            finished = bool(state.steps) and state.steps[-1].terminal
            return {"solution": (FINISHED if finished else UNFINISHED) + more}
        return {
            f"step_{i}": (LAST if step.terminal else STEP).format(i) + more for i, step in enumerate(state.steps, 1)
        }

    async def _ask(self, state: State, asked: Mapping[str, str], tally: Tally) -> dict[str, float | None]:
        """The probability of each of `asked`; None where the model refused."""
        text = _input(state)
        if self.api == "decisions":
            questions = [{"type": "predicate", "name": n, "instructions": what} for n, what in asked.items()]
            body = {"model": self.model, "input": text, "questions": questions, **self.extra}
        else:
            named = {name: {"type": "noul", "instructions": what} for name, what in asked.items()}
            body = {"model": self.model, "state": text, "questions": named, **self.extra}
        reply = await self._post(body, cache_key(state), tally)
        if not isinstance(reply, dict):
            raise VerifierError(f"{self.model}: the reply to a {self.api} request is no JSON object: {reply!r:.200}")
        self._charge(reply.get("usage"), len(text.encode()) * len(asked), tally)
        read = _listed if self.api == "decisions" else _named
        return read(reply.get("answers"), [*asked])

    async def _post(self, body: Mapping[str, Any], key: str, tally: Tally) -> Any:
        if not self._keyed:
            return await self.endpoint.post(self.api, body, tally)
        try:
            return await self.endpoint.post(self.api, {"prompt_cache_key": key, **body}, tally)
        except ConfigurationError as error:
            refused = isinstance(error.__cause__, openai.BadRequestError | openai.UnprocessableEntityError)
            if not refused or not more_calls(1):
                raise
        reply = await self.endpoint.post(self.api, body, tally)
        self._keyed = False
        return reply

    def _charge(self, usage: Any, size: int, tally: Tally) -> None:
        usage = usage if isinstance(usage, dict) else {}
        read = int(usage.get("input_tokens") or 0)
        cached = int((usage.get("input_tokens_details") or {}).get("cached_tokens") or 0)
        self._ratio = max(self._ratio, read / size)
        tally.add(usage_of(read, int(usage.get("output_tokens") or 0), cached, self.price))


def _input(state: State) -> str:
    return f"{RULES}\n{problem(state)}{steps(state.steps)}{END}"


def _listed(answers: Any, names: Sequence[str]) -> dict[str, float | None]:
    """Of a list of answers in the order of the questions. Raises VerifierError."""
    if not isinstance(answers, list) or len(answers) != len(names):
        raise VerifierError(f"{len(names)} questions, and these answers: {answers!r:.200}")
    return {
        name: _chance(answer, name, "predicate", "probability") for name, answer in zip(names, answers, strict=True)
    }


def _named(answers: Any, names: Sequence[str]) -> dict[str, float | None]:
    """Of answers by name. Raises VerifierError."""
    if not isinstance(answers, dict) or set(answers) != set(names):
        raise VerifierError(f"questions on {', '.join(names)}, and these answers: {answers!r:.200}")
    return {name: _chance(answers[name], name, "noul", "noul") for name in names}


def _chance(answer: Any, name: str, kind: str, field: str) -> float | None:
    answer = answer if isinstance(answer, dict) else {}
    if answer.get("name", name) != name:
        raise VerifierError(f"the answer to {name!r} is to another question: {answer!r:.200}")
    if answer.get("type") == "refusal":
        return None
    chance = answer.get(field)
    if answer.get("type") != kind or isinstance(chance, bool) or not isinstance(chance, int | float):
        raise VerifierError(f"the answer to {name!r} is no {kind} with a {field}: {answer!r:.200}")
    if not -_ROUNDING <= chance <= 1 + _ROUNDING:
        raise VerifierError(f"the answer to {name!r} is no probability: {chance!r}")
    return min(max(float(chance), 0.0), 1.0)

"""A chat model as critic: one judgement a state, or one a step.

The score is the probability of the word "yes" where the model gives log-probabilities (Zhang et al. 2024, "Generative
Verifiers: Reward Modeling as Next-Token Prediction", arXiv 2408.15240), and where it does not, a number that it is
asked for. Self-critique is often worth less than a vote: measure a critic before you rely on it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ...chat import Chat, Reply
from ...errors import ConfigurationError
from ...mdp import Score, State, Usage
from ...together import together
from .judge import Heard, Judge, all_judged, remark
from .prompts import Prompt, cache_key, example, problem, rules, schema, steps
from .replies import Node, UnreadableError, Value, fraction, probabilities, read_object, text_of, word

TOP = 10  # of the scale
VERDICTS = {
    "yes": "yes", "true": "yes", "correct": "yes", "right": "yes",
    "no": "no", "false": "no", "incorrect": "no", "wrong": "no",
}  # fmt: skip

_WHOLE = f"""\
Judge the solution as a whole.
verdict: in a finished solution "yes" if all steps and the final answer are correct; in an unfinished one "yes" if all \
steps so far are correct and a correct answer can be reached from here; otherwise "no".
score: how likely "yes" is right, a whole number from 0 (certainly wrong) to {TOP} (certainly right)."""
_EACH = f"""\
Judge each step of the solution on its own, taking what comes before it as given.
verdict: "yes" if the step is correct and leads towards a correct answer, otherwise "no".
score: how likely "yes" is right, a whole number from 0 (certainly wrong) to {TOP} (certainly right)."""
_VERDICT = {"type": "string", "enum": ["yes", "no"]}
_SCORE = {"type": "integer", "enum": [*range(TOP + 1)]}
_SHOWN = {"verdict": '"yes" or "no"', "score": f"0 to {TOP}"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """One reply: rewards in [0, 1], and what they are."""

    rewards: tuple[float, ...]
    measure: str  # "P(yes)", "score" or "verdict"
    critique: str


class Critic:
    """r(s) by a chat model: the mean of `samples` judgements, each in [0, 1].

    per_step      one reward for each step, from one reply; a reply about another number of steps is unreadable
    reason        a critique comes before the verdict; False: the verdict alone, cheaper and less thought over
    temperature   None leaves it to the model
    instructions  further criteria, trusted as written
    max_tokens    of a reply, the thoughts of a reasoning model included
    retries       how often it asks again for replies that could not be read
    step_tokens   the length of a step that is not written yet, for `bound`

    A reply that cannot be read after all is left out of the mean and told in `Score.critique`; `parse_failures` counts
    such replies. `score` raises UnjudgedError, a VerifierError, if a state is left without any; and ModelError or
    ConfigurationError as the chat does.
    """

    def __init__(
        self,
        chat: Chat,
        *,
        samples: int = 1,
        temperature: float | None = 0.0,
        instructions: str | None = None,
        per_step: bool = False,
        reason: bool = True,
        max_tokens: int = 512,
        retries: int = 1,
        step_tokens: int = 256,
    ) -> None:
        if samples < 1:
            raise ConfigurationError(f"samples must be at least 1; got {samples}")
        if samples > 1 and temperature == 0:
            raise ConfigurationError(f"{samples} samples at temperature 0 are one and the same: set temperature=0.7")
        self.samples, self.per_step, self.reason = samples, per_step, reason
        self._judge = Judge(chat, temperature, max_tokens, retries, step_tokens)
        self._rules = {each: rules(_EACH if each else _WHOLE, reason, instructions) for each in (False, True)}

    @property
    def parse_failures(self) -> int:
        """Replies so far that could not be read."""
        return self._judge.failures

    @property
    def identity(self) -> str:
        prompt = self._prompt(State("?"))
        digest = hashlib.sha256(f"{self._rules[self.per_step]}{prompt.task}".encode()).hexdigest()[:12]
        return f"critic({self._judge.identity}, {self.samples} samples, per step {self.per_step}, prompt {digest})"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """The most that scoring `n` continuations costs if every reply can be read. Each further request is made only
        if the budget has a call left."""
        prompts = (self._prompt(guess) for guess in self._judge.guess(state, n, max_steps))
        return sum((self._judge.bound(prompt, 2, self.samples) for prompt in prompts), Usage())

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        heard = await together(self.ask(state) for state in states)
        failed = [why for one in heard for why in one.failed]
        return all_judged([mean(one) for one in heard], failed)

    async def ask(self, state: State) -> Heard[Judgement]:
        """The judgements on one state."""
        count = len(state.steps) if self._each(state) else 0
        return await self._judge.ask(self._prompt(state), 2, lambda reply: _read(reply, count), n=self.samples)

    def _each(self, state: State) -> bool:
        return self.per_step and bool(state.steps)

    def _prompt(self, state: State) -> Prompt:
        each = self._each(state)
        finished = bool(state.steps) and state.steps[-1].terminal
        fields = {"critique": {"type": "string"}} if self.reason else {}
        shown = {"critique": '"..."'} if self.reason else {}
        task = f"The solution is {'finished' if finished else 'not finished'}"
        if each:
            item = schema({"verdict": _VERDICT, "score": _SCORE})
            wanted = {**fields, "steps": {"type": "array", "items": item}}
            task += f" and has {len(state.steps)} steps; judge every one, in their order"
            form = example({**shown, "steps": f"[{example(_SHOWN)}, ...]"})
        else:
            wanted = {**fields, "verdict": _VERDICT, "score": _SCORE}
            form = example({**shown, **_SHOWN})
        task += f". Reply with one JSON object and nothing else: {form}"
        evidence = problem(state) + steps(state.steps)
        return Prompt(self._rules[each], evidence, task, schema(wanted), cache_key(state))


def _read(reply: Reply, count: int) -> Judgement:
    """`count`: the steps that are judged one by one, 0 for the state as a whole."""
    found = read_object(reply, ("steps",) if count else ("verdict", "score"))
    verdicts: list[Node] = [found]
    if count:
        listed = found.get("steps")
        verdicts = listed if isinstance(listed, list) else []
        if len(verdicts) != count:
            raise UnreadableError(f"verdicts on {len(verdicts)} steps, where there are {count}")
    rewards = [_reward(reply, verdict) for verdict in verdicts]
    measures = dict.fromkeys(measure for _, measure in rewards)
    return Judgement(tuple(reward for reward, _ in rewards), " or ".join(measures), text_of(found.get("critique")))


def _reward(reply: Reply, verdict: Node) -> tuple[float, str]:
    """P(yes) where the reply carries it, or else its score, or else its bare verdict."""
    if isinstance(verdict, Value):
        verdict = {"verdict": verdict, "score": verdict}
    if not isinstance(verdict, dict):
        raise UnreadableError("no verdict in it")
    score = fraction(verdict.get("score"), TOP)
    try:
        said, at = word(verdict.get("verdict"), VERDICTS)
    except UnreadableError:
        if score is None:
            raise
        return score, "score"
    chances = probabilities(reply, at, VERDICTS)
    if chances is not None:
        return chances["yes"], "P(yes)"
    if score is None and "score" in verdict and verdict["score"] is not verdict["verdict"]:
        raise UnreadableError(f"a score that is not clear, {text_of(verdict['score'])!r}")
    return (float(said == "yes"), "verdict") if score is None else (score, "score")


def mean(heard: Heard[Judgement]) -> Score | None:
    """One score of several judgements; None if there are none."""
    read = heard.read
    if not read:
        return None
    rewards = tuple(sum(column) / len(read) for column in zip(*(one.rewards for one in read), strict=True))
    means = ", ".join(f"{reward:.2f}" for reward in rewards)
    of = f" of {len(read)} samples" if len(read) > 1 else ""
    summary = f"{' or '.join(dict.fromkeys(one.measure for one in read))} {means}{of}"
    return Score(rewards, remark(summary, (one.critique for one in read), heard.failed), heard.usage)

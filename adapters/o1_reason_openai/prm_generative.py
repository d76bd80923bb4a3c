"""Process reward models that write their judgement: ThinkPRM (arXiv 2504.16828), and any chat model asked like it."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from o1_reason.chat import Chat, Message, Reply, Sampling
from o1_reason.errors import ConfigurationError, VerifierError
from o1_reason.mdp import Score, State, Usage
from o1_reason.together import together
from o1_reason.verifiers.critics.judge import continuations

from .prm import all_scored
from .prm_formats import THINKPRM, PRMFormat, find_format

LEAD = "\nLet's verify step by step:"  # what the model was trained to go on from
_BOXED = re.compile(r"\\boxed\{\s*(?:\\text\w*\{\s*)?(correct|incorrect)\s*\}", re.IGNORECASE)
_FINAL = re.compile(r"is the solution correct\?\W*(yes|no)\b", re.IGNORECASE)
_STEP = re.compile(r"^[#*\s]*step\s+(\d+)\b", re.IGNORECASE | re.MULTILINE)
_NEAR_THE_END = 40  # characters that may follow the final word for its log-probabilities to be the last ones


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one chain says: P(the path is right so far), and whether it is right up to each step, where that is told."""

    right: float
    steps: tuple[bool, ...] | None = None


def read_judgement(reply: Reply, n: int) -> Judgement | None:
    """The judgement of a path of `n` steps; None if the chain cannot be read.

    The final "Is the solution correct?" counts, by the log-probabilities of Yes and No where the server gives them;
    without it, the path is right if each step is.
    """
    steps = _steps(reply.text, n)
    finals = list(_FINAL.finditer(reply.text))
    if finals:
        last = finals[-1]
        near = len(reply.text) - last.end() <= _NEAR_THE_END
        share = _yes(reply.top_logprobs) if near else None
        return Judgement(float(last[1].lower() == "yes") if share is None else share, steps)
    return None if steps is None else Judgement(float(steps[-1]), steps)


def _steps(text: str, n: int) -> tuple[bool, ...] | None:
    """Whether the path is right up to each step: the last verdict in each step's section, or the verdicts in order."""
    heads = list(_STEP.finditer(text))
    ends = [*(head.start() for head in heads), len(text)][1:]
    said: dict[int, bool] = {}
    for head, end in zip(heads, ends, strict=True):
        verdicts = _BOXED.findall(text, head.end(), end)
        if verdicts:
            said[int(head[1])] = verdicts[-1].lower() == "correct"
    if not heads:
        verdicts = _BOXED.findall(text)
        said = {i: word.lower() == "correct" for i, word in enumerate(verdicts, 1)} if len(verdicts) == n else {}
    right, found = True, list[bool]()
    for i in range(1, n + 1):
        if right and i not in said:
            return None
        right = right and said[i]
        found.append(right)
    return tuple(found)


def _yes(positions: Sequence[Mapping[str, float]]) -> float | None:
    """P(Yes) / (P(Yes) + P(No)) at the last position where one of them is the likeliest token."""
    for tops in reversed(positions):
        if tops and max(tops, key=lambda token: tops[token]).strip().lower() in ("yes", "no"):
            mass = {"yes": 0.0, "no": 0.0}
            for token, logprob in tops.items():
                if token.strip().lower() in mass:
                    mass[token.strip().lower()] += math.exp(logprob)
            return mass["yes"] / (mass["yes"] + mass["no"])
    return None


class GenerativePRM:
    """A verifier that has a chat model judge each step in writing, several times, and takes the mean.

    The last reward is P(the path is right so far), the mean over the chains. Earlier steps get the share of the chains
    in which the path is right up to there, if all chains tell; otherwise there is one reward only. Chains that cannot
    be read are left out, counted in `unreadable` and named in the critique; if none can be read, that is a
    VerifierError.

    chains        judgements of each path
    temperature   None: the model's own
    max_tokens    of each chain
    top_logprobs  alternatives of each token asked for, to get P(Yes) rather than a Yes; 0: none
    step_tokens   the most tokens of a step, for `bound`
    """

    def __init__(
        self,
        chat: Chat,
        *,
        chains: int = 4,
        format: PRMFormat | str = THINKPRM,
        temperature: float | None = 0.7,
        max_tokens: int = 4096,
        top_logprobs: int = 5,
        step_tokens: int = 256,
    ) -> None:
        form = format if isinstance(format, PRMFormat) else find_format("", format)
        if form.reads != "verdict":
            raise ConfigurationError(f"a {form.name} model does not write its judgement: use RemotePRM")
        if min(chains, max_tokens, step_tokens) < 1:
            raise ConfigurationError("chains, max_tokens and step_tokens must be at least 1")
        self.chat, self.format, self.chains, self.step_tokens = chat, form, chains, step_tokens
        self.sampling = Sampling(chains, max_tokens, temperature, logprobs=top_logprobs > 0, top_logprobs=top_logprobs)
        self.unreadable = 0  # chains so far

    @property
    def identity(self) -> str:
        record = hashlib.sha256(repr((self.format, self.sampling)).encode()).hexdigest()[:12]
        return f"generative-prm({self.chat.identity}, {self.format.name}/{record}, {self.chains})"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """What judging `n` continuations costs, as far as the chat model can tell, if no step has more than
        `step_tokens` tokens."""
        guesses = continuations(state, n, max_steps, self.step_tokens)
        prompts = (self._messages(guess.question, [step.text for step in guess.steps]) for guess in guesses)
        return sum((self.chat.bound(prompt, self.sampling) for prompt in prompts), Usage())

    def _messages(self, question: str, steps: Sequence[str]) -> list[Message]:
        return [{"role": "user", "content": self.format.text(question, steps)}]

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        """Raises UnjudgedError, a VerifierError, if there is a path without steps, or one that no chain judges in a
        form that can be read; and what the chat raises."""
        return all_scored(await together(self._judge(state) for state in states))

    async def _judge(self, state: State) -> Score | str:
        """The score of a path, or why it has none."""
        try:
            question, steps = self.format.clean(state.question, state.steps)
        except VerifierError as error:
            return str(error)
        prefix = LEAD if await self.chat.continues() else None
        sampling = replace(self.sampling, stop=(f"Step {len(steps) + 1}:",))  # there is no such step to verify
        replies, usage = await self.chat.complete(self._messages(question, steps), sampling, prefix)
        read = [read_judgement(reply, len(steps)) for reply in replies]
        found = [judgement for judgement in read if judgement is not None]
        self.unreadable += len(read) - len(found)
        if found:
            return Score(_rewards(found, len(steps)), _critique(found, len(read) - len(found)), usage)
        end = f"the last ends with {replies[-1].text[-200:]!r}" if replies else "there is none"
        return f"none of {len(read)} judgements can be read ({end}); raise max_tokens, or use a model trained for this"


def _rewards(found: Sequence[Judgement], n: int) -> tuple[float, ...]:
    right = math.fsum(judgement.right for judgement in found) / len(found)
    columns = [judgement.steps for judgement in found if judgement.steps is not None]
    if len(columns) < len(found):
        return (right,)
    return (*(sum(steps[i] for steps in columns) / len(columns) for i in range(n - 1)), right)


def _critique(found: Sequence[Judgement], lost: int) -> str | None:
    """Where the chains see the first mistake, and how many could not be read."""
    first = [judgement.steps.index(False) + 1 for judgement in found if judgement.steps and not judgement.steps[-1]]
    said = [f"step {i} is judged wrong in {first.count(i)} of {len(found)} chains" for i in sorted(set(first))]
    if lost:
        said.append(f"{lost} of {lost + len(found)} chains could not be read")
    return "; ".join(said) or None

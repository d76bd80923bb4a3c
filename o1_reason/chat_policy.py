"""A policy over any chat model: steps by continuing the assistant's text, or else turn by turn."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from .answers import extract_answer
from .chat import Chat, Message, Reply, Sampling
from .errors import ConfigurationError
from .mdp import Proposals, State, Step, Usage
from .segment import split_steps

Mode = Literal["auto", "continue", "instruct"]

STEPS = (
    "Solve the problem step by step. Write one short step per paragraph, and separate paragraphs by an empty line. "
    'End with a paragraph that reads "Answer: " and then nothing but the final answer.'
)
ONE_STEP = (
    "Solve the problem together with me, one step at a time. In each of your turns write only the next step, one short "
    "paragraph, and then stop and wait. When the problem is solved, write a turn that reads "
    '"Answer: " and then nothing but the final answer.'
)
NEXT = "Next step."
REST = 'Now write all remaining steps, one short paragraph each, and end with the paragraph "Answer: ...".'


def find_answer(state: State) -> str | None:
    """What the last step marks as the final answer (`answers.extract_answer`)."""
    return extract_answer(state.steps[-1].text) if state.steps else None


class ChatPolicy:
    """pi(a|s) by a chat model.

    mode "continue": the steps so far are the beginning of the assistant's turn, which the model goes on with; a step
    ends at `separator`. Prompts of one search only ever grow at their end, so prefix caches hit. mode "instruct", for
    models that cannot continue a turn: each step is a turn of its own, asked for by "Next step."; these prompts, too,
    only grow. "auto" is "continue" where `chat.continues()`.

    A step is terminal when `extract` finds an answer in it, or when the model ended its turn ("continue"). What was
    cut by the token limit is never terminal.

    step_tokens, solution_tokens   limits on what one call generates for a step, for a whole solution
    temperature                    used where a strategy asks for none; None leaves it to the model
    instructions                   system message in place of the built-in one; "" for none at all
    extract                        the answer that a state ends with, None where it is not finished
    """

    def __init__(
        self,
        chat: Chat,
        *,
        mode: Mode = "auto",
        separator: str = "\n\n",
        step_tokens: int = 512,
        solution_tokens: int = 4096,
        temperature: float | None = 0.8,
        instructions: str | None = None,
        extract: Callable[[State], str | None] = find_answer,
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigurationError(f"mode must be one of {', '.join(get_args(Mode))}; got {mode!r}")
        if not separator or step_tokens < 1 or solution_tokens < 1:
            raise ConfigurationError("the separator must not be empty, and both token limits at least 1")
        if temperature is not None and not temperature >= 0:
            raise ConfigurationError(f"temperature must be at least 0, or None; got {temperature}")
        self.chat = chat
        self.mode: Mode = mode
        self.separator = separator
        self.step_tokens = step_tokens
        self.solution_tokens = solution_tokens
        self.temperature = temperature
        self.instructions = instructions
        self.extract = extract

    @property
    def identity(self) -> str:
        settings = (self.mode, self.separator, self.step_tokens, self.solution_tokens, self.temperature)
        return f"chat({self.chat.identity})/{settings}/{self.instructions!r}/{self.extract.__qualname__}"

    def bound(self, state: State, n: int, max_steps: int) -> Usage:
        """The most that a call costs, in the dearer of the modes that may be used."""
        modes = (True, False) if self.mode == "auto" else (self.mode == "continue",)
        sampling = self._sampling(state, n, max_steps, None, None, True)
        costs = [self.chat.bound(messages, sampling, prefix) for messages, prefix in (
            self._prompt(state, max_steps, continuing) for continuing in modes
        )]  # fmt: skip
        return max(costs, key=lambda cost: cost.tokens)

    async def propose(
        self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None, seed: int | None = None
    ) -> Proposals:
        """Raises ConfigurationError or ModelError if no reply could be had."""
        if state.steps and state.steps[-1].terminal:
            return Proposals(())
        continuing = self.mode == "continue" or (self.mode == "auto" and await self.chat.continues())
        messages, prefix = self._prompt(state, max_steps, continuing)
        sampling = self._sampling(state, n, max_steps, temperature, seed, continuing)
        replies, usage = await self.chat.complete(messages, sampling, prefix)
        read = self._read if continuing else self._read_turn
        candidates = (read(state, reply, max_steps) for reply in replies)
        return Proposals(tuple(candidate for candidate in candidates if candidate), usage)

    def _sampling(
        self, state: State, n: int, max_steps: int, temperature: float | None, seed: int | None, continuing: bool
    ) -> Sampling:
        single = max_steps == 1
        return Sampling(
            n=n,
            max_tokens=self.step_tokens if single else self.solution_tokens,
            temperature=self.temperature if temperature is None else temperature,
            stop=(self.separator,) if single and continuing else (),
            seed=seed,
            logprobs=True,
            cache_key=hashlib.sha256(f"{state.question}\x1f{state.context}".encode()).hexdigest()[:32],
        )

    # What the model is shown.

    def _prompt(self, state: State, max_steps: int, continuing: bool) -> tuple[list[Message], str | None]:
        by_turns = not continuing and (max_steps == 1 or bool(state.steps))
        instructions = (ONE_STEP if by_turns else STEPS) if self.instructions is None else self.instructions
        messages = conversation(state, instructions)
        if continuing:
            return messages, "".join(step.text + self.separator for step in state.steps)
        for step in state.steps:
            messages += [{"role": "assistant", "content": step.text}, {"role": "user", "content": NEXT}]
        if state.steps and max_steps > 1:
            messages[-1] = {"role": "user", "content": REST}
        return messages, None

    # What the model said.

    def _read(self, state: State, reply: Reply, max_steps: int) -> tuple[Step, ...]:
        """Steps of a reply that continues the text; none if there is nothing in it."""
        ended = reply.finish == "end" or (reply.finish == "unknown" and not reply.text.strip())
        if max_steps == 1:
            texts = [reply.text.strip()] if reply.text.strip() else []
        else:
            texts = split_steps(reply.text, self.separator, max_steps)
        if not texts:  # the solution was complete as it stood
            answer = self.extract(state) or extract_answer(state.text)
            return (Step("", True, answer, tokens=reply.tokens),) if ended and state.steps else ()
        return self._steps(state, texts, reply, ended)

    def _read_turn(self, state: State, reply: Reply, max_steps: int) -> tuple[Step, ...]:
        """Steps of a reply that is a turn of its own. Of a turn that runs ahead only the first step is taken, unless
        what follows is nothing but the answer."""
        texts = split_steps(reply.text, self.separator, None if max_steps == 1 else max_steps)
        if not texts or reply.finish == "filter":
            return ()
        if max_steps > 1:
            return self._steps(state, texts, reply, reply.finish == "end")
        if len(texts) == 2 and extract_answer(texts[1]) is not None:
            texts = [f"{texts[0]}\n\n{texts[1]}"]
        return self._steps(state, texts[:1], replace(reply, finish="stop") if len(texts) > 1 else reply, False)

    def _steps(self, state: State, texts: Sequence[str], reply: Reply, ended: bool) -> tuple[Step, ...]:
        """`texts` as steps; the last one is terminal if the model `ended` there or it holds an answer."""
        total = sum(map(len, texts))
        steps = [Step(text, logprob=reply.logprob, tokens=round(reply.tokens * len(text) / total)) for text in texts]
        whole = State(state.question, (*state.steps, *steps), state.context)
        answer = None if reply.finish == "length" else self.extract(whole)
        if ended and answer is None:
            answer = extract_answer(whole.text)
        if ended or answer is not None:
            steps[-1] = replace(steps[-1], terminal=True, answer=answer)
        return tuple(steps)


def conversation(state: State, instructions: str) -> list[Message]:
    """The messages before the first step: `instructions`, the context as it came, the question.

    Instructions join the context's system message, if it begins with one. Pictures of the question stand in the
    context as a user message of content parts; they join the question.
    """
    context: list[dict[str, Any]] = [dict(message) for message in state.context]
    if instructions and context and context[0].get("role") in ("system", "developer"):
        first = context[0].get("content")
        if isinstance(first, str):
            context[0] = {**context[0], "content": f"{first}\n\n{instructions}"}
        else:
            context[0] = {**context[0], "content": [*(first or ()), {"type": "text", "text": instructions}]}
    elif instructions:
        context.insert(0, {"role": "system", "content": instructions})
    question: Message = {"role": "user", "content": state.question}
    if context and context[-1].get("role") == "user" and isinstance(context[-1].get("content"), list):
        parts = context.pop()["content"]
        question = {"role": "user", "content": [*parts, {"type": "text", "text": state.question}]}
    return [*context, question]

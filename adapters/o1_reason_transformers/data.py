"""Training data as token ids: what a policy is shown and says when it is searched with, to the token."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o1_reason.answers import extract_answer
from o1_reason.chat import Message
from o1_reason.chat_policy import STEPS, ChatPolicy, conversation
from o1_reason.errors import ConfigurationError
from o1_reason.learn.files import read_rows
from o1_reason.mdp import State

from .chat import TransformersChat
from .prompts import head_ids, text_ids, turn_end

Row = dict[str, Any]
LINE = "\n"  # behind the question and each step of a row's prompt (`o1_reason.learn.rows`)


@dataclass(frozen=True, slots=True)
class Shown:
    """A policy's prompts and solutions. `ends` are the tokens that may end a turn."""

    policy: ChatPolicy
    tokenizer: Any
    ends: frozenset[int]

    def messages(self, question: str) -> list[Message]:
        """What stands before the first step."""
        instructions = self.policy.instructions
        return conversation(State(question), STEPS if instructions is None else instructions)

    def sft(self, data: Path) -> Iterator[Row]:
        """Solutions, of which the steps and the end of the turn are learned."""
        end = self._end
        for row in _read(data, "prompt", "steps"):
            head = self._head(_question(row))
            said = [*text_ids(self.tokenizer, self.policy.separator.join(row["steps"])), end]
            yield {"input_ids": head + said, "labels": [-100] * len(head) + said}

    def dpo(self, data: Path) -> Iterator[Row]:
        """Two steps after the same path. A step with the answer ends the turn, another one goes on to the next."""
        for row in _read(data, "prompt", "steps", "chosen", "rejected"):
            head = self._head(_question(row))
            before = text_ids(self.tokenizer, "".join(step + self.policy.separator for step in row["steps"]))
            yield {
                "prompt_ids": head + before,
                "chosen_ids": self._step(row["chosen"]),
                "rejected_ids": self._step(row["rejected"]),
            }

    def grpo(self, data: Path) -> list[Row]:
        """The distinct questions of traces, or of rows with a prompt."""
        questions: dict[str, None] = {}
        for _, row in read_rows(data):
            if "question" in row or "prompt" in row:
                questions.setdefault(_question(row))
        if not questions:
            raise ConfigurationError(f'{data} has no row with a "question" or a "prompt"')
        return [{"prompt": self.messages(question)} for question in questions]

    def _head(self, question: str) -> list[int]:
        return head_ids(self.tokenizer, self.messages(question), self.template)

    def _step(self, text: str) -> list[int]:
        if extract_answer(text) is not None:
            return [*text_ids(self.tokenizer, text), self._end]
        return text_ids(self.tokenizer, text + self.policy.separator)

    @property
    def template(self) -> dict[str, Any]:
        """Variables of the chat template."""
        assert isinstance(self.policy.chat, TransformersChat)
        return self.policy.chat.template

    @property
    def _end(self) -> int:
        return turn_end(self.tokenizer, self.ends, self.template)


def _question(row: Row) -> str:
    """What was asked: in a preference the prompt goes on with the steps before."""
    if "question" in row:
        return row["question"]
    path = "".join(step + LINE for step in row.get("steps", ())) if "chosen" in row else ""
    return row["prompt"].removesuffix(path).removesuffix(LINE)


def _read(data: Path, *names: str) -> Iterator[Row]:
    """Raises ConfigurationError where there is no row, or a field is missing."""
    line = 0
    for line, row in read_rows(data):
        if missing := [name for name in names if name not in row]:
            raise ConfigurationError(f'{data}, line {line}: no "{missing[0]}"; give rows with {", ".join(names)}')
        yield row
    if not line:
        raise ConfigurationError(f"{data} has no rows; collect some data first")


def fitting(rows: Iterator[Row], most: int, report: Callable[[str], None]) -> list[Row]:
    """The solutions that fit in `most` tokens, whole: one that was cut would not end. Raises ConfigurationError if
    none does."""
    all_ = list(rows)
    kept = [row for row in all_ if len(row["input_ids"]) <= most]
    if len(kept) < len(all_):
        report(f"{len(all_) - len(kept)} of {len(all_)} solutions do not fit in {most} tokens")
    if not kept:
        raise ConfigurationError(f"no solution fits in {most} tokens; raise max_length")
    return kept

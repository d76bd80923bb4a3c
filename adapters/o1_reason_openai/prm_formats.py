"""How process reward models want to be asked, and where they answer: one record per family.

A prompt only grows: ``head``, then each step closed by ``mark``, with ``between`` in front of the next one. The score
of a step is read at the last token of its mark, so it sees nothing that comes later, and what was scored stays a prefix
of what will be scored.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from o1_reason.aggregate import Aggregate, check_aggregate
from o1_reason.errors import ConfigurationError, VerifierError
from o1_reason.mdp import Step

Route = Literal["pooling", "embeddings", "generative_scoring", "score", "completions"]
Reads = Literal["classes", "value", "labels", "verdict"]

_ROUTES: dict[str, tuple[Route, ...]] = {
    "classes": ("pooling",),
    "value": ("embeddings", "pooling"),
    "labels": ("generative_scoring", "score", "completions"),
    "verdict": (),
}
_NUMBER = re.compile(r"^(?:#+\s*)?\**step\s*\d+\s*[:.)](?!\d)\**:?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PRMFormat:
    """One family of process reward models. Raises ConfigurationError for a record that cannot work.

    head            text before the first step; ``{question}`` stands for the question
    mark            closes a step; the step's score is read at its last token
    between         stands between a mark and the next step
    tail            stands after the last mark; no score sees it
    numbered        "Step 2: " goes before the second step; a number that the policy wrote itself is replaced
    mark_ids        the mark as token ids; (): whatever the model's tokenizer says
    reads           what the model gives at a mark:
                    "classes"  a probability for each class; the score is that of class `good`
                    "value"    one number; the score is its sigmoid
                    "labels"   the next token; the score is the softmax of `labels`, the good one's share
                    "verdict"  nothing: it writes its judgement (see `GenerativePRM`)
    good            index of the good class
    labels          token ids of the good and of the bad label
    rows            the server sends what it read for each mark, or for each token. In the latter case the pieces of the
                    prompt are tokenized one by one, as in training, and token ids are sent
    special_tokens  the tokenizer's own special tokens, such as BOS, begin the prompt
    reserved        texts that the model takes for structure: where a question or step contains one, a space is put
                    behind its first character
    aggregate       how the authors make one score of a path's (for a strategy's `aggregate`)
    models          regular expression of the names of the models that it is for; None: has to be asked for by name
    source          where all this is from
    """

    name: str
    head: str
    mark: str
    reads: Reads
    between: str = ""
    tail: str = ""
    numbered: bool = False
    mark_ids: tuple[int, ...] = ()
    good: int = 1
    labels: tuple[int, ...] = ()
    rows: Literal["marks", "tokens"] = "marks"
    special_tokens: bool = True
    reserved: tuple[str, ...] = ()
    aggregate: Aggregate = "last"
    models: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        check_aggregate(self.aggregate)
        if self.reads not in get_args(Reads):
            raise ConfigurationError(f"reads must be one of {', '.join(get_args(Reads))}; got {self.reads!r}")
        if "{question}" not in self.head:
            raise ConfigurationError(f"the head of {self.name!r} must contain {{question}}; got {self.head!r}")
        if not self.mark and self.reads != "verdict":
            raise ConfigurationError(f"{self.name!r} needs a mark: the text at whose end a step's score is read")
        if self.reads == "labels" and (len(self.labels) != 2 or self.tail or self.rows != "marks"):
            raise ConfigurationError(
                f"{self.name!r} reads labels: it needs the token ids of two, no tail, and rows for marks"
            )

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes by which such a model can be asked, the usual one first."""
        return _ROUTES[self.reads]

    def clean(self, question: str, steps: Sequence[Step]) -> tuple[str, list[str]]:
        """Question and steps as they go into the prompt. Raises VerifierError where there is nothing to score."""
        if not steps:
            raise VerifierError("a process reward model scores steps, and the state has none")
        return self._plain(question), [self._step(step, i) for i, step in enumerate(steps, 1)]

    def _plain(self, text: str) -> str:
        text = text.strip()
        for word in self.reserved:
            while word in text:
                text = text.replace(word, f"{word[0]} {word[1:]}")
        return text

    def _step(self, step: Step, i: int) -> str:
        text = step.text.strip() or (step.answer or "").strip()
        mark = self.mark.strip()
        if mark:  # a policy trained on the same data writes it itself
            text = text.removesuffix(mark).rstrip()
        if self.numbered:
            text = _NUMBER.sub("", text, count=1)
        text = self._plain(text)
        if not text:
            raise VerifierError(f"step {i} is empty; a score of it would be one of nothing")
        return f"Step {i}: {text}" if self.numbered else text

    def pieces(self, question: str, steps: Sequence[str]) -> list[str]:
        """Head, step, mark, step, mark ... for what `clean` returned: the marks are the pieces 2, 4, 6 ..."""
        found = [self.head.replace("{question}", question)]
        for i, step in enumerate(steps):
            found += [self.between + step if i else step, self.mark]
        return found

    def prefixes(self, question: str, steps: Sequence[str]) -> list[str]:
        """The prompt up to and with each mark, shortest first."""
        pieces = self.pieces(question, steps)
        return ["".join(pieces[: 2 * i + 1]) for i in range(1, len(steps) + 1)]

    def text(self, question: str, steps: Sequence[str]) -> str:
        """The whole prompt."""
        return "".join(self.pieces(question, steps)) + self.tail

    def positions(self, ids: Sequence[int]) -> list[int]:
        """Where the scores stand in a tokenized prompt: the index of each mark's last token."""
        size = len(self.mark_ids)
        ends = range(size, len(ids) + 1) if size else ()
        return [end - 1 for end in ends if tuple(ids[end - size : end]) == self.mark_ids]


QWEN = PRMFormat(
    name="qwen2.5-math-prm",
    head=(
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    ),
    mark="<extra_0>",
    tail="<|im_end|>\n",
    mark_ids=(151651,),
    reads="classes",
    reserved=("<|", "<extra_"),
    aggregate="prod",
    models=r"qwen2\.5-math-(prm-\d+b|\d+b-prm800k)",
    source="model card of Qwen/Qwen2.5-Math-PRM-7B; arXiv 2501.07301",
)

SKYWORK = PRMFormat(
    name="skywork-o1-open-prm",
    head="<|endoftext|>{question}\n",
    mark="\n",
    mark_ids=(198,),
    reads="value",
    rows="tokens",
    special_tokens=False,
    reserved=("<|",),
    aggregate="mean",
    models=r"skywork-o1-open-prm",
    source="github.com/SkyworkAI/skywork-o1-prm-inference, model_utils/io_utils.py; model card",
)

MATH_SHEPHERD = PRMFormat(
    name="math-shepherd",
    head="{question} ",
    mark=" ки",
    between="\n",
    numbered=True,
    mark_ids=(12902,),
    reads="labels",
    labels=(648, 387),  # "+", "-"
    reserved=("ки",),
    aggregate="min",
    models=r"math-shepherd.*prm",
    source="model card of peiyi9979/math-shepherd-mistral-7b-prm; arXiv 2312.08935",
)

RLHFLOW = PRMFormat(  # the chat template of Llama 3.1, a turn for each step, and a reply of "+" to it
    name="rlhflow",
    head=(
        "<|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n{question} "
    ),
    mark="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    between="+<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    mark_ids=(128009, 128006, 78191, 128007, 271),
    reads="labels",
    labels=(10, 12),  # "+", "-"
    reserved=("<|",),
    aggregate="mean",
    models=r"llama-?3\.1-8b-prm-(mistral|deepseek)-data",
    source="github.com/RLHFlow/RLHF-Reward-Modeling, math-rm/prm_evaluate.py",
)

MATH_PSA = PRMFormat(
    name="math-psa",
    head="{question} ",
    mark=" \n\n\n\n\n",
    between=" ",
    mark_ids=(76325,),
    reads="labels",
    labels=(488, 481),  # " +", " -"
    reserved=("<|", "\n\n\n"),
    aggregate="min",
    models=r"math-psa",
    source="github.com/openreasoner/openr, prm/infer_fns.py and reason/inference/rm_call.py; arXiv 2410.09671",
)

TRL = PRMFormat(
    name="trl",
    head="{question}",
    mark="\n",
    reads="classes",
    rows="tokens",
    source="TRL up to 1.13, PRMTrainer with its default step_separator",
)

THINKPRM = PRMFormat(
    name="thinkprm",
    head=(
        "You are given a math problem and a proposed step-by-step solution:\n\n"
        "[Math Problem]\n\n{question}\n\n[Solution]\n\n"
    ),
    mark="",
    between="\n",
    tail=(
        "\n\nReview and critique each step in the proposed solution to determine whether each step is correct. "
        "If the solution is incomplete, only verify the provided steps."
    ),
    numbered=True,
    reads="verdict",
    reserved=("<|", "</think", "<think", "[Math Problem]", "[Solution]", "\\boxed{correct", "\\boxed{incorrect"),
    models=r"thinkprm",
    source="github.com/mukhal/ThinkPRM, utils/helper.py; arXiv 2504.16828",
)

FORMATS = (QWEN, SKYWORK, MATH_SHEPHERD, RLHFLOW, MATH_PSA, TRL, THINKPRM)


def find_format(model: str, name: str | None = None) -> PRMFormat:
    """The record called `name`, or else the one for models called `model`; raises ConfigurationError."""
    for record in FORMATS:
        if record.name == name if name else record.models and re.search(record.models, model, re.IGNORECASE):
            return record
    known = ", ".join(record.name for record in FORMATS)
    if name:
        raise ConfigurationError(f"no format is called {name!r}; there are: {known}")
    raise ConfigurationError(
        f"the name {model!r} does not tell its format; give format=..., a PRMFormat or one of: {known}"
    )

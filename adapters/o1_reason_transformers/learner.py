"""Models of `transformers` as a learner (`o1_reason.learn.learner.Learner`): the loop of `improve` with TRL."""

import inspect
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from o1_reason.chat_policy import ChatPolicy
from o1_reason.errors import ConfigurationError
from o1_reason.learn.plan import Plan
from o1_reason.loop import Loop

from .chat import TransformersChat
from .data import Shown, fitting
from .loading import EXTRA, load_tokenizer, quiet
from .prm import TransformersPRM, find_format
from .problems import SPLITS, GoldVerifier, ProblemFile, read_file
from .prompts import end_ids

Report = Callable[[str], None]


class TransformersLearner:
    """A policy and a reward model that begin as models of the Hugging Face Hub, or as folders.

    model        of the policy, in the beginning
    problems     a file of questions with gold answers (`o1_reason.learn.problems.read_problems`)
    prm          of the reward model, in the beginning; None: `model`, with a new head, which knows nothing
    valid, test  shares of the problems for the gates and for measuring
    format       of the reward model's prompts, as `TransformersPRM` has it
    settings     of `TransformersChat` and `ChatPolicy`, by keyword, in each round; device and dtype are those of the
                 reward model, too

    Weights are a folder with the folders ``policy`` and ``prm``, each as ``save_pretrained`` leaves it.
    """

    def __init__(
        self,
        model: str,
        *,
        problems: str | Path,
        prm: str | None = None,
        valid: float = 0.1,
        test: float = 0.1,
        format: str = "trl",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if not model or min(valid, test) < 0 or valid + test >= 1:
            raise ConfigurationError(f"give a model, and valid + test below 1; got {model!r}, {valid} and {test}")
        self.model, self.prm, self.format = model, prm or model, format
        self.path, self.valid, self.test = Path(problems), valid, test
        self.settings = dict(settings or {})
        find_format(format)
        if self._policy(model).mode == "instruct":
            raise ConfigurationError('what is trained is whole turns: leave mode out, or give mode="continue"')

    @cached_property
    def file(self) -> ProblemFile:
        return read_file(self.path, self.valid, self.test)

    def begin(self, out: Path, *, seed: int, scale: str, report: Report) -> None:
        """Copies of the models that it begins with: out/policy as it is, out/prm with a head drawn by `seed`, unless
        the model has one. A new head knows nothing, so the first round searches by chance. `scale` may be any word.
        """
        _transformers()
        from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, set_seed

        self.file  # noqa: B018 - an unreadable file is told before a model is loaded
        parts = (("policy", AutoModelForCausalLM, self.model, {"dtype": "auto"}),
                 ("prm", AutoModelForTokenClassification, self.prm, {"dtype": "float32", "num_labels": 2}))  # fmt: skip
        for name, kind, source, options in parts:
            report(f"{name}: {source}")
            set_seed(seed)
            try:
                tokenizer = load_tokenizer(source, self._revision(source))
                with quiet(source):
                    model: Any = kind.from_pretrained(source, revision=self._revision(source), **options)
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"the model {source!r} cannot be loaded: {error}") from error
            if name == "prm":
                model.config.pad_token_id = tokenizer.pad_token_id
            with quiet(out):
                model.save_pretrained(out / name)
            tokenizer.save_pretrained(out / name)

    def plan(self, scale: str) -> Plan:
        """What a round does, whatever the scale. Budgets go by the policy's `solution_tokens`, for as much is set aside
        for each solution before it is drawn; steps are labelled by the solutions of the searches."""
        train, valid, test = (len(self.file.splits[name]) for name in SPLITS)
        one = self._policy(self.model).solution_tokens
        return Plan(
            problems=max(1, min(200, train)), option=("n=32",), tokens=32 * one, label="outcomes",
            gate_problems=max(1, min(100, valid // 2)), gate_tries=1, gate_tokens=16 * one,
            measure_problems=max(1, min(100, test)), measure_tokens=(4 * one, 8 * one, 16 * one, 32 * one),
        )  # fmt: skip

    def policy(self, weights: Path) -> ChatPolicy:
        return self._policy(str(_existing(weights / "policy")))

    def verifier(self, weights: Path) -> TransformersPRM:
        policy = self._policy(self.model)
        same = {name: self.settings[name] for name in ("device", "dtype") if name in self.settings}
        return TransformersPRM(
            str(_existing(weights / "prm")), format=self.format, step_tokens=policy.step_tokens,
            solution_tokens=policy.solution_tokens, **same,
        )  # fmt: skip

    def checker(self) -> GoldVerifier:
        return self.file.verifier

    def problems(self, split: str, n: int, seed: int) -> list[str]:
        return self.file.draw(split, n, seed)

    def train_policy(
        self, data: Path, start: Path, out: Path, *, method: str, seed: int, report: Report, **settings: Any
    ) -> dict[str, Any]:
        """`settings` are the fields of `SFTSettings`, `DPOSettings` or `GRPOSettings`; of GRPO's weights `process` and
        `outcome`. The data is tokenized as the policy is prompted (`data.Shown`)."""
        _transformers()
        from o1_reason.learn import policy_trainer as trl
        from o1_reason.learn.problems import VerifierChecker
        from o1_reason.learn.training import policy_settings

        model, made = _existing(start / "policy"), out / "policy"
        tokenizer = load_tokenizer(str(model))
        shown = Shown(self._policy(str(model)), tokenizer, _ends(model, tokenizer))
        defaults: dict[str, Any] = {"save_every": 0}  # what a killed stage has begun is not kept
        if method == "grpo":
            defaults |= {"separator": shown.policy.separator}
        options = policy_settings(method, {**defaults, **settings}, judged=(start / "prm").is_dir())
        told: dict[str, Any] = {"seed": seed, "report": report}
        if method == "sft":
            record = trl.train_sft(model, fitting(shown.sft(data), options.max_length, report), made, options, **told)
        elif method == "dpo":
            record = trl.train_dpo(model, list(shown.dpo(data)), made, options, **told)
        else:
            judge = self.verifier(start) if options.weights.process else None
            record = trl.train_grpo(
                model, shown.grpo(data), made, options, verifier=judge, checker=VerifierChecker(self.checker()),
                tokenizer=tokenizer, template=shown.template, **told,
            )  # fmt: skip
        _tidy(made)
        return record

    def train_prm(
        self, data: Path, start: Path, out: Path, *, objective: str, seed: int, report: Report, **settings: Any
    ) -> dict[str, Any]:
        """`settings` are the fields of `PRMSettings`, and `loss`, `threshold` and `gamma` of `Objective`. Where `start`
        has no reward model, the policy there gets a new head."""
        _transformers()
        from o1_reason.learn.prm_data import tree_rows
        from o1_reason.learn.prm_trainer import train_prm
        from o1_reason.learn.problems import VerifierChecker
        from o1_reason.learn.traces import TraceStore
        from o1_reason.learn.training import prm_settings

        model = start / "prm" if (start / "prm").is_dir() else _existing(start / "policy")
        options = prm_settings(objective, {"save_every": 0, **settings})
        rows: Any = data
        if objective == "td":
            with Loop() as loop:
                rows = loop.run(tree_rows(TraceStore(data), VerifierChecker(self.checker())))
        made = out / "prm"
        record = train_prm(
            str(model), rows, made, options, format=find_format(self.format), seed=seed, report=report
        )  # fmt: skip
        _tidy(made)
        return record

    def _policy(self, model: str) -> ChatPolicy:
        chat, policy = (_of(kind, self.settings) for kind in (TransformersChat, ChatPolicy))
        if strange := set(self.settings) - {*chat, *policy}:
            raise ConfigurationError(f"neither TransformersChat nor ChatPolicy has a setting {min(strange)!r}")
        if Path(model).is_dir():
            chat.pop("revision", None)  # it is the first model's
        return ChatPolicy(TransformersChat(model, **chat), **policy)

    def _revision(self, source: str) -> str | None:
        return self.settings.get("revision") if source == self.model and not Path(source).is_dir() else None


def _of(kind: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `settings` that `kind` has."""
    return {name: settings[name] for name in inspect.signature(kind).parameters if name in settings}


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ConfigurationError(f"there are no weights in {folder}; o1-reason improve --model transformers:... begins")
    return folder


def _ends(model: Path, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a turn, without loading the model."""
    from types import SimpleNamespace

    from transformers import GenerationConfig

    try:
        return end_ids(SimpleNamespace(generation_config=GenerationConfig.from_pretrained(str(model))), tokenizer)
    except OSError:  # it has no such file
        return end_ids(None, tokenizer)


def _tidy(folder: Path) -> None:
    """Weights and tokenizer are what the folder is for, the same after each run."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / "training_args.bin").unlink(missing_ok=True)


def _transformers() -> None:
    from importlib.util import find_spec

    if find_spec("transformers") is None or find_spec("torch") is None:
        raise ConfigurationError(EXTRA)

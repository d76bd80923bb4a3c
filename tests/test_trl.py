"""The trainers on transformers and TRL, for real: a tiny random Llama, a few steps on the CPU, data out of searches."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch: pip install 'o1-reason[train]'")
pytest.importorskip("trl", reason="training needs TRL: pip install 'o1-reason[train]'")

from o1_reason_embedded import EmbeddedPolicy, RuleVerifier  # noqa: E402
from o1_reason_openai.prm_formats import QWEN, TRL  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tiny_llama import llama, tokenizer  # noqa: E402

from o1_reason import Budget, search  # noqa: E402
from o1_reason.errors import ConfigurationError  # noqa: E402
from o1_reason.learn import policy_trainer, step_rewards  # noqa: E402
from o1_reason.learn.advantages import Weights, advantages  # noqa: E402
from o1_reason.learn.export import write_jsonl  # noqa: E402
from o1_reason.learn.objectives import Objective  # noqa: E402
from o1_reason.learn.policy_trainer import DPOSettings, GRPOSettings, SFTSettings  # noqa: E402
from o1_reason.learn.prm_data import Encoder, Lines, collate, tree_examples, tree_loss, tree_rows  # noqa: E402
from o1_reason.learn.prm_trainer import PRMSettings, train_prm  # noqa: E402
from o1_reason.learn.problems import Problem, VerifierChecker  # noqa: E402
from o1_reason.learn.step_rewards import step_ends  # noqa: E402
from o1_reason.learn.traces import TraceStore, trace_of  # noqa: E402
from o1_reason.learn.trees import outcomes, preference_pairs, solutions, tree_outcomes  # noqa: E402
from o1_reason.mdp import Score, State, Step  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


CHECKER = VerifierChecker(RuleVerifier())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What searches with the embedded policy brought: the files that the trainers read."""
    import asyncio

    folder = tmp_path_factory.mktemp("data")
    asyncio.run(collected(folder))
    return folder


async def collected(folder: Path) -> None:
    policy, verifier, budget = EmbeddedPolicy(), RuleVerifier(), Budget()
    traces = []
    for question in ("4 5 6 10", "1 2 3 4", "2 3 5 12", "3 3 7 7"):
        result = await search(question, policy, verifier, "mcts", budget, seed=0)
        traces.append(trace_of(result, policy, verifier, "mcts", budget))
    stepwise, completions, pairs = [], [], []
    for trace in traces:
        stepwise += [row async for row in tree_outcomes(trace, CHECKER)]
        completions += [row async for row in solutions(trace, CHECKER)]
        shares = {i: share for i, (share, _) in (await outcomes(trace, CHECKER)).items()}
        pairs += list(preference_pairs(trace, values=shares))
    assert stepwise and completions and pairs
    for name, rows in (("traces", traces), ("stepwise", stepwise), ("completions", completions), ("pairs", pairs)):
        write_jsonl(rows, folder / f"{name}.jsonl")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy to begin with."""
    folder = tmp_path_factory.mktemp("base")
    llama("CausalLM").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def weights_of(model: Any) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def losses(lines: list[str]) -> list[float]:
    return [float(line.split("loss ")[1]) for line in lines if "loss " in line]


# Process reward models.


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_soft_labels_stay_soft_and_are_read_where_a_served_model_is_read(tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification

    rows = write(
        tmp_path / "rows.jsonl",
        {"prompt": "4 5 6 10", "completions": ["4 + 5 = 9", "6 + 9 = 15", "2"], "labels": [0.9, None, 0.2]},
    )
    settings = PRMSettings(max_steps=60, learning_rate=5e-3, save_every=0)
    record = train_prm(
        llama("TokenClassification", num_labels=2), rows, tmp_path / "out", settings, tokenizer=tokenizer()
    )
    assert record["steps"] == 60
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    words = tokenizer()
    pieces = TRL.pieces("4 5 6 10", ["4 + 5 = 9", "6 + 9 = 15", "2"])
    ids = [i for piece in pieces for i in words(piece, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        right = model(torch.tensor([ids])).logits.softmax(-1)[0, :, TRL.good]
    marks = [at for at, i in enumerate(ids) if i == words.convert_tokens_to_ids("\n")]
    assert [right[marks[0]].item(), right[marks[2]].item()] == pytest.approx([0.9, 0.2], abs=0.05)


def test_the_default_format_is_the_one_that_serving_calls_trl() -> None:
    steps = ["4 + 5 = 9", "6 + 9 = 15\n"]
    mine = Lines().clean(" 4 5 ", [Step(s) for s in steps])
    assert mine == TRL.clean(" 4 5 ", [Step(s) for s in steps])
    assert Lines().pieces(*mine) == TRL.pieces(*mine)


def test_marks_of_a_qwen_prompt_are_where_serving_reads_them() -> None:
    words = tokenizer()
    qwen = replace(QWEN, head="{question}(", tail=")", mark_ids=(words.convert_tokens_to_ids("<extra_0>"),))
    ids, marks = Encoder(words, qwen, 100)("4 5", ["4 + 5", "9"])
    assert marks == qwen.positions(ids)
    assert words.decode(ids) == "4 5(4 + 5<extra_0>9<extra_0>)"


def test_steps_that_do_not_fit_are_left_out_whole_and_counted() -> None:
    words = tokenizer()
    encode = Encoder(words, replace(Lines(), tail="=", special_tokens=False), 12)
    ids, marks = encode("4 5", ["4 + 5", "9 * 9", "1"])
    assert words.decode(ids) == "4 5" + "4 + 5\n" + "="
    assert marks == [8]
    assert encode.cut == {"rows": 1, "steps": 2}


async def test_the_loss_of_a_batch_of_trees_is_that_of_its_exact_targets(data: Path) -> None:
    rows = await tree_rows(TraceStore(data / "traces.jsonl"), CHECKER)
    examples = tree_examples(rows, Encoder(tokenizer(), Lines(), 250))
    batch = collate(examples[:2], 0)
    assert (batch["row"] >= 0).sum() == sum(len(row["texts"]) - 1 for row in rows[:2]), "each step is read once"
    shape = batch["input_ids"].shape
    generator = torch.Generator().manual_seed(0)
    logits, frozen = (torch.randn(shape, generator=generator) for _ in range(2))
    expected = []
    for row, example, first in zip(rows[:2], examples[:2], (0, len(examples[0]["paths"])), strict=True):
        backup = row["backup"]

        def value(i: int, of: Any, example: Any = example, first: int = first) -> float:
            return of[first + example["row"][i], example["at"][i]].sigmoid().item()

        for i in range(1, len(backup.parents)):
            children = [j for j, parent in enumerate(backup.parents) if parent == i]
            if not backup.ends[i] and not children:
                continue
            worth = [backup.rewards[j] if backup.ends[j] else value(j, frozen) for j in children]
            target = backup.rewards[i] if backup.ends[i] else max(worth)
            expected.append((value(i, logits) - target) ** 2)
    found = tree_loss(Objective("td", "mse"), logits, frozen, batch)
    assert found.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["classification", "regression", "td"])
async def test_each_objective_is_learned_from_what_was_searched(name: Any, data: Path, tmp_path: Path) -> None:
    rows: Any = data / "stepwise.jsonl"
    if name == "td":
        rows = await tree_rows(TraceStore(data / "traces.jsonl"), CHECKER)
    settings = PRMSettings(Objective(name), max_steps=12, batch=4, learning_rate=3e-3, save_every=0, target_every=6)
    lines: list[str] = []
    model = llama("TokenClassification", num_labels=2)
    record = train_prm(model, rows, tmp_path, settings, tokenizer=tokenizer(), report=lines.append)
    assert record["steps"] == 12
    assert record["objective"]["name"] == name
    shown = losses(lines)
    assert len(shown) == 12
    assert sum(shown[-3:]) < 0.95 * sum(shown[:3])


async def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(data: Path, tmp_path: Path) -> None:
    rows = await tree_rows(TraceStore(data / "traces.jsonl"), CHECKER)
    settings = PRMSettings(Objective("td"), max_steps=6, batch=2, learning_rate=1e-3, save_every=2, target_every=2)

    def train(folder: str, report: Any) -> Any:
        model = llama("TokenClassification", num_labels=2)
        record = train_prm(model, rows, tmp_path / folder, settings, tokenizer=tokenizer(), report=report)
        return record["steps"], weights_of(model)

    def stop(line: str) -> None:
        if line.startswith("prm 5/"):
            raise KeyboardInterrupt

    _, whole = train("whole", lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        train("stopped", stop)
    lines: list[str] = []
    steps, resumed = train("stopped", lines.append)
    assert steps == 6
    assert len(losses(lines)) == 2, "it goes on from the checkpoint after step 4"
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_checkpoint_that_would_have_another_target_network_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="multiple of target_every"):
        PRMSettings(Objective("td"), save_every=75, target_every=50)


# Policies.


def test_searched_solutions_are_learned(base: Path, data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    settings = SFTSettings(max_steps=8, batch=4, learning_rate=5e-3, save_every=0)
    record = policy_trainer.train_sft(base, data / "completions.jsonl", tmp_path, settings, report=lines.append)
    assert record["steps"] == 8
    assert losses(lines)[-1] < 0.9 * losses(lines)[0]
    assert (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "tokenizer.json").exists()


def test_dpo_prefers_the_better_step_and_teaches_no_stop_after_it(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []

    def spy(trainer: Any, *rest: Any) -> Any:
        trained.extend(trainer.train_dataset)
        return finished(trainer, *rest)

    finished = policy_trainer._finished
    monkeypatch.setattr(policy_trainer, "_finished", spy)
    lines: list[str] = []
    settings = DPOSettings(max_steps=8, batch=4, learning_rate=2e-3, save_every=0, warmup=0)
    policy_trainer.train_dpo(base, data / "pairs.jsonl", tmp_path, settings, report=lines.append)
    assert losses(lines)[0] == pytest.approx(0.6931, abs=1e-3), "it begins as its own reference"
    assert losses(lines)[-1] < losses(lines)[0]
    words = tokenizer()
    rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()]
    assert len(trained) == len(rows)
    for row, tokens in zip(rows, trained, strict=True):
        for name in ("chosen", "rejected"):
            assert words.decode(tokens["prompt_ids"] + tokens[f"{name}_ids"]) == row["prompt"] + row[name]


def test_pairs_that_do_not_fit_are_counted(base: Path, data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    settings = DPOSettings(max_steps=1, max_length=5, save_every=0)
    with pytest.raises(ConfigurationError, match="raise max_length"):
        policy_trainer.train_dpo(base, data / "pairs.jsonl", tmp_path, settings, report=lines.append)
    assert "do not fit in 5 tokens" in lines[0]


class Digits:
    """A process reward that can be read off a step: the share of digits in it."""

    identity = "digits"

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        return [Score(tuple(share(step.text) for step in state.steps)) for state in states]


def share(text: str) -> float:
    return sum(character.isdigit() for character in text) / max(1, len(text))


class Even:
    identity = "even"

    async def check(self, problem: Problem, states: Sequence[State]) -> list[bool | None]:
        assert problem.question in ("4 5 6 10", "1 2 3 4", "2 3 5 12", "3 3 7 7")
        return [len(state.text) % 2 == 0 for state in states]


def test_grpo_trains_on_the_advantages_of_steps(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []

    def spy(judge: Any, batch: Any, group: int, words: Any) -> Any:
        found = step_rewards.token_advantages(judge, batch, group, words)
        seen.append((judge.texts, judge.process, judge.outcomes, batch, found))
        return found

    monkeypatch.setattr(policy_trainer, "token_advantages", spy)
    weights = Weights(process=1.0, outcome=0.5)
    settings = GRPOSettings(
        group=4, batch=8, max_steps=3, max_new_tokens=24, learning_rate=1e-3, save_every=0, separator=" ",
        weights=weights,
    )  # fmt: skip
    lines: list[str] = []
    record = policy_trainer.train_grpo(
        base, data / "traces.jsonl", tmp_path, settings, verifier=Digits(), checker=Even(), report=lines.append
    )  # fmt: skip
    assert record["steps"] == 3
    assert record["rows"] == 4
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path))
    assert any(not torch.equal(after[name], before[name]) for name in before)
    words, several = tokenizer(), 0
    for texts, process, outcomes_, batch, found in seen:
        assert found.shape == batch["completion_ids"].shape
        assert process == [[share(step) for step in steps] for steps in texts]
        by_hand = [row for at in (0, 4) for row in advantages(process[at : at + 4], outcomes_[at : at + 4], weights)]
        for row, steps in enumerate(by_hand):
            several += len(steps) > 1
            expected = by_character(words, batch["completion_ids"][row].tolist(), texts[row], steps)
            shown = {at: found[row, at].item() for at in expected}
            assert shown == pytest.approx(expected, abs=1e-5)
    assert several


def by_character(words: Any, ids: list[int], texts: list[str], steps: list[float]) -> dict[int, float]:
    """The advantage of each token that is a character: that of the last step that began at it or before."""
    pieces = {at: piece for at, i in enumerate(ids) if (piece := words.decode([i], skip_special_tokens=True))}
    text = "".join(pieces.values())
    starts, end = [], 0
    for step in texts:
        starts.append(text.index(step, end))
        end = starts[-1] + len(step)
    return {at: steps[max(0, bisect_right(starts, n) - 1)] for n, at in enumerate(pieces)}


def test_what_the_weights_ask_for_has_to_be_given(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give a verifier"):
        policy_trainer.train_grpo(base, data / "traces.jsonl", tmp_path, checker=Even())


def test_a_step_ends_where_the_next_begins_whatever_the_tokens() -> None:
    tokens = ["4 + 5", " = 9\n6", " + ", "9\n", "\n2", "</s>"]

    def decode(ids: Sequence[int]) -> str:
        return "".join(tokens[i] for i in ids if tokens[i] != "</s>")

    assert step_ends(["4 + 5 = 9", "6 + 9", "2"], range(6), decode) == [2, 5, 5]
    assert step_ends([""], [5], decode) == [0]

import asyncio
import sqlite3

import pytest
from langgraph.store.memory import InMemoryStore

from o1_reason import (
    BestOfN,
    Budget,
    ConfigurationError,
    Gate,
    LedgerError,
    Proposals,
    Score,
    SQLiteLedger,
    State,
    Step,
    StoreLedger,
    Usage,
    search,
)
from o1_reason.ledger import key_of, proposals_data, proposals_from, resolve_ledger, scores_data, scores_from
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier

SCRIPT = {
    (): [Step("a", logprob=-0.1, tokens=3), "b", "= 3"],
    ("a",): ["= 1", "= 1", "c"],
    ("a", "c"): ["= 2"],
    ("b",): [],
}
REWARDS = {"a": 0.5, "b": 0.25, "c": 0.75, "= 2": 0.9, "= 1": 0.1}


class DictLedger:
    def __init__(self):
        self.records = {}
        self.closed = False

    async def get(self, key):
        await asyncio.sleep(0)
        return self.records.get(key)

    async def put(self, key, record):
        await asyncio.sleep(0)
        self.records[key] = record

    async def close(self):
        self.closed = True


def models(**options):
    return ScriptedPolicy(SCRIPT, **options), ScriptedVerifier(REWARDS)


KINDS = {
    "path": lambda folder: folder / "deep" / "calls.sqlite",
    "text": lambda folder: str(folder / "calls.sqlite"),
    "store": lambda folder: InMemoryStore(),
    "custom": lambda folder: DictLedger(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["beam", "mcts", "best_of_n"])
async def test_a_rerun_makes_no_model_call_and_gives_an_equal_result(kind, strategy, tmp_path):
    ledger = KINDS[kind](tmp_path)
    first = await search("q", *models(), strategy, ledger=ledger)
    policy, verifier = models()
    second = await search("q", policy, verifier, strategy, ledger=ledger)
    assert policy.calls == verifier.calls == []
    assert second.tree == first.tree
    assert (second.answer, second.ranking, second.usage) == (first.answer, first.ranking, first.usage)


async def test_a_search_cut_short_pays_on_its_rerun_only_for_what_is_missing(tmp_path):
    await search("q", *models(), "beam", Budget(max_calls=2), ledger=tmp_path / "calls")
    policy, _ = models()
    result = await search("q", policy, None, "beam", ledger=tmp_path / "calls")
    assert () not in [path for path, _, _ in policy.calls]
    assert policy.calls
    assert result.answer is not None


@pytest.mark.parametrize(
    "changed",
    [{"question": "q2"}, {"seed": 1}, {"identity": "another model"}, {"context": ({"role": "user", "content": "x"},)}],
    ids=lambda changed: next(iter(changed)),
)
async def test_another_question_seed_model_or_context_is_another_call(changed):
    ledger = DictLedger()
    await search("q", *models(), "beam", ledger=ledger)
    policy, verifier = models(identity=changed.pop("identity", "scripted-policy"))
    await search(changed.pop("question", "q"), policy, verifier, "beam", ledger=ledger, **changed)
    assert policy.calls


async def test_every_sample_of_a_node_has_its_own_record():
    script = {(): ["= 1", "= 2", "= 3", "= 4"]}
    ledger = DictLedger()
    for _ in range(2):
        policy = ScriptedPolicy(script, samples_per_call=1)
        result = await search("q", policy, None, BestOfN(n=4), ledger=ledger)
        assert [node.step.answer for node in result.tree.nodes[1:]] == ["1", "2", "3", "4"]
    assert not policy.calls


async def test_failed_calls_are_not_kept():
    ledger = DictLedger()
    await search("q", ScriptedPolicy({(): ["a", "= 1"], ("a",): RuntimeError("down")}), None, "beam", ledger=ledger)
    policy = ScriptedPolicy({(): ["a", "= 1"], ("a",): ["= 2"]})
    result = await search("q", policy, None, "beam", ledger=ledger)
    assert [path for path, _, _ in policy.calls] == [("a",)]
    assert {answer for answer, _ in result.ranking} == {"1", "2"}


@pytest.mark.parametrize("missing", ["policy", "verifier"])
@pytest.mark.parametrize("identity", [None, "", 7])
async def test_a_ledger_needs_an_identity_of_both_models(missing, identity):
    policy, verifier = models()
    (policy if missing == "policy" else verifier).identity = identity
    with pytest.raises(ConfigurationError, match=f"{missing} Scripted.* identity"):
        await search("q", policy, verifier, "beam", ledger=DictLedger())
    await search("q", policy, verifier, "beam")


async def test_a_gate_of_verifiers_with_identities_has_one():
    a, b = ScriptedVerifier({}, identity="a"), ScriptedVerifier({}, identity="b")
    assert Gate(a, b).identity != Gate(b, a).identity
    with pytest.raises(ConfigurationError, match="identity"):
        await search("q", ScriptedPolicy(SCRIPT), Gate(a, object()), "beam", ledger=DictLedger())


def blocked_by_a_file(folder):
    (folder / "file").write_text("x")
    return folder / "file" / "calls.sqlite"


def no_database(folder):
    (folder / "file").write_text("this is no database, and it is long enough to be recognised as none" * 20)
    return folder / "file"


@pytest.mark.parametrize("path", [blocked_by_a_file, no_database, lambda folder: folder], ids=["file", "text", "dir"])
async def test_a_ledger_that_cannot_be_opened_ends_the_search_before_any_call(path, tmp_path):
    policy, _ = models()
    with pytest.raises(LedgerError, match="cannot be used"):
        await search("q", policy, None, "beam", ledger=path(tmp_path))
    assert not policy.calls


async def test_a_full_disk_loses_no_answer_and_is_reported(tmp_path):
    ledger, events = SQLiteLedger(tmp_path / "calls"), []
    await ledger.put("key", {})
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    policy = ScriptedPolicy({(): ["long " * 5000, "= 1"]})
    result = await search("q", policy, None, "beam", ledger=ledger, on_event=events.append)
    await ledger.close()
    assert result.answer == "1"
    assert [event for event in events if event["event"] == "failed" and "full" in event["error"]]


async def test_a_locked_database_is_a_ledger_error(tmp_path, monkeypatch):
    ledger = SQLiteLedger(tmp_path / "calls")
    await ledger.put("key", {"a": 1})
    ledger._connection.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "calls", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match="locked"):
        await ledger.put("key", {"a": 2})
    other.close()
    assert await ledger.get("key") == {"a": 1}
    await ledger.close()


async def test_many_at_once_may_use_one_file_and_a_closed_one_opens_again(tmp_path):
    ledgers = [SQLiteLedger(tmp_path / "calls") for _ in range(3)]
    await asyncio.gather(*(ledger.put(f"{i} {k}", {"k": k}) for i, ledger in enumerate(ledgers) for k in range(20)))
    for ledger in ledgers:
        await ledger.close()
        assert await ledger.get("2 19") == {"k": 19}
        assert await ledger.get("unknown") is None
        await ledger.close()


async def test_a_ledger_that_was_handed_in_stays_open():
    ledger = DictLedger()
    await search("q", *models(), "beam", ledger=ledger)
    assert not ledger.closed


def test_what_is_no_ledger_is_refused():
    assert resolve_ledger(None) is None
    assert isinstance(resolve_ledger(InMemoryStore()), StoreLedger)
    with pytest.raises(ConfigurationError, match="a path, a LangGraph store or a Ledger"):
        resolve_ledger(7)


def test_records_of_calls_round_trip():
    proposals = Proposals(((Step("a", logprob=-1.5, tokens=2), Step("b", True, "1")), ()), Usage(1, 2, 3, 0.5))
    assert proposals_from(proposals_data(proposals)) == proposals
    scores = [Score((0.5, 1.0), "fine", Usage(1)), Score((0.0,))]
    assert scores_from(scores_data(scores)) == scores


def test_a_key_depends_on_content_alone():
    one = key_of("m", "propose", State("q", (Step("a", logprob=-1.0),)), n=1, first=0)
    same = key_of("m", "propose", State("q", (Step("a", logprob=-2.0, tokens=9),)), first=0, n=1)
    others = [
        key_of("m2", "propose", State("q", (Step("a"),)), n=1, first=0),
        key_of("m", "score", State("q", (Step("a"),)), n=1, first=0),
        key_of("m", "propose", State("q", (Step("a", True, "1"),)), n=1, first=0),
        key_of("m", "propose", State("q", (Step("a"), Step("a"))), n=1, first=0),
        key_of("m", "propose", State("q", (Step("a"),)), n=1, first=1),
    ]
    assert one == same
    assert len({one, *others}) == 6

"""A verifier that can score some states and not others: what it could score is kept, paid once, and resumed."""

from collections.abc import Sequence

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from o1_reason import BestOfN, Score, State, Usage, VerifierError, create_reasoner, search
from o1_reason.errors import UnjudgedError
from o1_reason.testing import ScriptedPolicy

POLICY = {(): ["= 1", "= 2", "= 3"]}


class Partial:
    """Has no score for the answers in `silent`, and charges nothing for saying so."""

    identity = "partial"

    def __init__(self, *silent: str) -> None:
        self.silent = silent
        self.asked: list[list[str]] = []

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        answers = [state.steps[-1].answer or "" for state in states]
        self.asked.append(answers)
        scores = [
            None if answer in self.silent else Score((int(answer) / 10,), usage=Usage(1, 5)) for answer in answers
        ]
        if None in scores:
            raise UnjudgedError("no verdict", scores)
        return [score for score in scores if score is not None]


async def test_the_scores_there_are_decide_and_the_rest_is_dead():
    result = await search("q", ScriptedPolicy(POLICY), Partial("3"), BestOfN(3))
    assert result.answer == "2"
    assert [node.dead for node in result.tree.nodes[1:]] == [None, None, "no verdict"]
    assert [node.reward for node in result.tree.nodes[1:]] == [0.1, 0.2, None]


async def test_without_any_score_the_error_is_raised():
    with pytest.raises(VerifierError, match="no verdict"):
        await search("q", ScriptedPolicy(POLICY), Partial("1", "2", "3"), BestOfN(3))


async def test_a_ledger_keeps_the_scores_there_are(tmp_path):
    for silent, asked in (("3",), [["1", "2", "3"]]), ((), [["3"]]):
        verifier = Partial(*silent)
        await search("q", ScriptedPolicy(POLICY), verifier, BestOfN(3), ledger=tmp_path / "ledger.sqlite")
        assert verifier.asked == asked


async def test_a_resumed_search_has_the_same_tree():
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "1"}}
    verifier = Partial("3")
    reasoner = create_reasoner(ScriptedPolicy(POLICY), verifier, strategy=BestOfN(3), checkpointer=saver)
    whole = await reasoner.ainvoke({"question": "q"}, config)
    before = next(
        state for state in [s async for s in reasoner.aget_state_history(config)] if state.next == ("finalize",)
    )
    again = await reasoner.ainvoke(None, before.config)
    assert again["tree"] == whole["tree"]
    assert again["usage"] == whole["usage"]
    assert len(verifier.asked) == 1

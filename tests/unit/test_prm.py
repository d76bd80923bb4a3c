"""Process reward models over HTTP, where servers do not do what they should: no score is better than a wrong one.

What real servers answer is in tests/integration/test_prm_vllm.py; here are replies that none gives on demand, and
those of servers that do not run on a CPU (SGLang, Skywork's plug-in).
"""

import asyncio
import math
import re

import pytest
from o1_reason_openai.endpoint import Endpoint
from o1_reason_openai.prm import RemotePRM
from o1_reason_openai.prm_formats import MATH_SHEPHERD, QWEN, SKYWORK, TRL, PRMFormat
from o1_reason_openai.prm_wire import labels_body, read_labels, read_rows, row_score, rows_body, usage_of
from openai_server import Request, Server

from o1_reason import ConfigurationError, State, Step, Usage, VerifierError
from o1_reason.errors import ModelError, UnjudgedError
from o1_reason.receipt import Receipt, current

ONE = State("1 + 1?", (Step("count"),))
TWO = ONE + Step("2", True, "2")
OTHER = ONE + Step("3", True, "3")
CLASSES = PRMFormat(name="classes", head="{question}\n", mark="<m>", mark_ids=(7,), reads="classes")
LABELS = PRMFormat(name="labels", head="{question}\n", mark="<m>", mark_ids=(7,), reads="labels", labels=(5, 6))


GOOD, BAD = [0.25, 0.75], [0.9, 0.1]


def replying(body, status=200):
    async def handler(request: Request) -> None:
        await request.reply(status, body)

    return handler


def letters(text, special):
    """A tokenizer: 9 at the beginning, 7 for a mark, and each other letter a token."""
    text = text.replace("<m>", "\7")
    return [9] * special + [ord(letter) for letter in text]


async def scores(reply, form, states=(TWO,), status=200, **settings):
    async with Server(replying(reply, status)) as server:
        prm = RemotePRM("prm", Endpoint(server.url, attempts=1), format=form, **settings)
        return await prm.score(states)


async def refuses(cases, form, states=(TWO,), **settings):
    """Each reply is a VerifierError that says why."""
    async with Server() as server:
        for reply, message in cases:
            server.script = [replying(reply)]
            prm = RemotePRM("prm", Endpoint(server.url, attempts=1), format=form, **settings)
            with pytest.raises(VerifierError) as caught:
                assert await prm.score(states) is None, reply
            assert re.search(message, str(caught.value)), (reply, message, caught.value)


def rows(*found, tokens=9):
    data = [{"index": i, "data": rows} for i, rows in enumerate(found)]
    return {"data": data, "usage": {"prompt_tokens": tokens}}


ROWS = [
    ([], "no list 'data'"),
    ({"data": {"0": [GOOD, BAD]}}, "no list 'data'"),
    ({"scores": [[GOOD, BAD]]}, "no list 'data'"),
    (rows(), "asked for 1 results, got 0"),
    (rows([GOOD, BAD], [GOOD, BAD]), "asked for 1 results, got those numbered"),
    ({"data": [{"index": 1, "data": [GOOD, BAD]}]}, "asked for 1 results, got those numbered"),
    ({"data": [[GOOD, BAD]]}, "no 'data'"),
    (rows("AACAPwAAgD8="), "must be a list"),
    (rows([]), "2 steps, but 0 scores"),
    (rows([GOOD]), "2 steps, but 1 scores"),
    (rows([GOOD, BAD, GOOD]), '2 steps, but 3 scores.*"step_tag_id":7'),
    (rows([0.25, 0.75]), "a probability for each class"),
    (rows([[0.75], [0.1]]), "a probability for each class"),
    (rows([GOOD, [-1.5, 2.5]]), "raw logits"),
    (rows([GOOD, [0.2, 0.3]]), "do not add up to 1"),
    (rows([GOOD, [0.25, "0.75"]]), "finite number"),
    (rows([GOOD, [False, True]]), "finite number"),
    (rows([GOOD, [0.25, math.nan]]), "finite number"),
    (rows([GOOD, BAD], tokens="9"), "no count of tokens"),
    (rows([GOOD, BAD], tokens=-1), "no count of tokens"),
    ({"data": [], "usage": [9]}, "no count of tokens"),
    ({"data": [{"index": None, "data": [GOOD]}, {"index": "0", "data": [GOOD]}]}, "asked for 1 results, got 2"),
]


async def test_rows_that_do_not_fit_the_steps_are_no_scores():
    await refuses(ROWS, CLASSES)


async def test_results_out_of_order_find_their_states():
    reply = rows([GOOD], [BAD])
    reply["data"].reverse()
    found = await scores(reply, CLASSES, [ONE, State("2 + 2?", (Step("4"),))])
    assert [score.rewards for score in found] == [(0.75,), (0.1,)]
    assert [score.usage for score in found] == [Usage(1, 9), Usage()]


async def test_a_path_without_a_score_does_not_take_those_of_others_away():
    empty, forged = State("?", (Step(" "),)), State("2 + 2?", (Step("4<m>5"),))
    message = r"no score for 2 of 4 paths: step 1 is empty.*; 1 steps, but 2 scores"
    with pytest.raises(UnjudgedError, match=message) as caught:
        await scores(rows([GOOD, BAD], [GOOD], [BAD, GOOD], tokens=21), CLASSES, [empty, forged, ONE, TWO])
    one, two = caught.value.scores[2:]
    assert caught.value.scores[:2] == (None, None)
    assert (one.rewards, one.usage) == ((0.75,), Usage(1, 21))
    assert (two.rewards, two.usage) == ((0.1, 0.75), Usage())


async def test_a_path_that_is_too_long_does_not_either():
    async with Server(replying(scored(0.5))) as server:
        prm = RemotePRM("prm", Endpoint(server.url), format=LABELS, tokenize=letters, context=16)
        with pytest.raises(UnjudgedError, match="a path of 16 tokens") as caught:
            await prm.score([TWO, ONE])
        assert [score and score.rewards for score in caught.value.scores] == [None, (0.5,)]
        assert len(server.requests[0].body["items"]) == 1


# BOS, "1 + 1?", "count", mark, "2", mark
TOKEN_ROWS = [
    (rows([[0.5, 0.5]] * 14, tokens=15), "15 tokens, but 14 rows"),
    (rows([[0.5, 0.5]] * 2, tokens=15), "15 tokens, but 2 rows"),
    (rows([[0.5, 0.5]] * 15, tokens=14), "the server read 14 of 15 tokens"),
]


async def test_a_row_for_each_token_means_each_token_that_was_sent():
    await refuses(TOKEN_ROWS, TRL, tokenize=letters)


async def test_the_row_of_a_mark_counts_and_no_other():
    found = [[1.0, 0.0]] * 15
    found[12], found[14] = GOOD, BAD
    (score,) = await scores(rows(found, tokens=15), TRL, tokenize=letters)
    assert score.rewards == (0.75, 0.1)


async def test_a_value_heads_numbers_become_probabilities_at_the_marks():
    tokens = letters(SKYWORK.head.replace("{question}", TWO.question), False)
    size = len(tokens) + len("count") + 3
    found = [50.0] * size
    found[-3], found[-1] = math.log(3), -math.log(4)
    reply = {"data": [{"index": 0, "embedding": found}], "usage": {"prompt_tokens": size}}
    (score,) = await scores(reply, SKYWORK, tokenize=letters)
    assert score.rewards == (pytest.approx(0.75), pytest.approx(0.2))
    assert read_rows("embeddings", {"data": [{"embedding": [[2.0]]}]}, 1) == [[[2.0]]]
    assert row_score(SKYWORK, [0.0]) == 0.5
    assert (row_score(SKYWORK, 1e6), row_score(SKYWORK, -1e6)) == (1.0, 0.0)
    with pytest.raises(VerifierError, match="one number for a token"):
        row_score(SKYWORK, [0.1, 0.9])


# Labels.


def scored(*found, **more):
    return {"data": [{"index": i, "object": "score", "score": score} for i, score in enumerate(found)], **more}


SHARES = [
    (scored(0.5), "asked for 2 results"),
    (scored(0.5, 0.5, 0.5), "asked for 2 results"),
    ({"data": [{"index": 0}, {"index": 1}]}, "no 'score'"),
    (scored(0.5, 1.5), "raw logits"),
    (scored(0.5, -0.1), "raw logits"),
    (scored(0.5, None), "finite number"),
]


async def test_shares_of_a_label_that_are_none_are_no_scores():
    await refuses(SHARES, LABELS, context=99)


PAIRS = [
    ({"scores": [[0.5, 0.5]]}, "asked for 2 results, got 1"),
    ({"scores": [[0.5, 0.5], [0.5]]}, "must add up to 1"),
    ({"scores": [[0.5, 0.5], [0.3, 0.2]]}, "must add up to 1"),
    ({"scores": [[0.5, 0.5], 0.5]}, "must add up to 1"),
    ({"scores": [[0.5, 0.5], [1.2, -0.2]]}, "raw logits"),
]


async def test_sglangs_scores_must_be_shares_of_both_labels():
    await refuses(PAIRS, LABELS, route="score")


def test_sglangs_first_score_is_the_good_labels():
    reply = {"scores": [[0.9, 0.1], [0.25, 0.75]], "model": "prm", "usage": None, "object": "scoring"}
    assert read_labels("score", reply, LABELS, 2) == [0.9, 0.25]
    assert usage_of(reply) == Usage()


def choices(*found):
    return {"choices": [{"index": i, "text": "", "logprobs": logprobs} for i, logprobs in enumerate(found)]}


def top(**logprobs):
    return {"tokens": ["x"], "token_logprobs": [-1.0], "top_logprobs": [logprobs]}


CHOICES = [
    (choices(None, None), "no log-probabilities of the tokens"),
    (choices(top(), top()), "no log-probabilities of the tokens"),
    (choices({"top_logprobs": [None]}, {"top_logprobs": []}), "no log-probabilities of the tokens"),
    (choices(top(a=-0.1, b=-3.0), top(a=-0.1)), "does not know logprob_token_ids"),
    (choices(top(**{"token_id:5": -0.1}), top()), "no log-probabilities of the tokens"),
    (choices(top(**{"token_id:5": -0.1, "token_id:6": None}), top()), "finite number"),
    ({"choices": [{"index": 0}, {"index": 1}]}, "no 'logprobs'"),
]


async def test_a_server_that_does_not_know_the_labels_is_told_apart():
    await refuses(CHOICES, LABELS, route="completions")


def test_log_probabilities_of_two_labels_are_weighed_against_each_other():
    one = top(**{"token_id:5": math.log(0.3), "token_id:6": math.log(0.1), "token_id:1": math.log(0.6)})
    two = top(**{"token_id:5": -9999.0, "token_id:6": -0.5})
    assert read_labels("completions", choices(one, two), LABELS, 2) == [pytest.approx(0.75), 0.0]


async def test_a_prompt_that_the_server_would_cut_is_refused():
    async with Server(replying({"tokens": list(range(16)), "count": 16, "max_model_len": 16})) as server:
        prm = RemotePRM("prm", Endpoint(server.url), format=LABELS)
        with pytest.raises(VerifierError, match=r"a path of 16 tokens .* does not fit into .* context of 16"):
            await prm.score([TWO])
        assert {request.path for request in server.requests} == {"/tokenize"}


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        ({"count": 3}, VerifierError, "gave no token ids"),
        ({"tokens": ["a"]}, VerifierError, "gave no token ids"),
        ({"tokens": [1]}, ConfigurationError, r"does not tell max_model_len; give context="),
    ],
)
async def test_a_tokenizer_that_tells_nonsense_is_named(reply, kind, message):
    with pytest.raises(kind, match=message):
        await scores(reply, LABELS)


# What the model's own tokenizer, at hand, tells before anything is sent.


@pytest.mark.parametrize("form", [CLASSES, LABELS])
async def test_marks_are_checked_before_anything_is_sent(form):
    def another(text, special):
        return [ord(letter) for letter in text]

    async with Server(replying({})) as server:
        prm = RemotePRM("prm", Endpoint(server.url), format=form, tokenize=another, context=999)
        with pytest.raises(VerifierError, match="is this the tokenizer of 'prm'"):
            await prm.score([TWO])
        assert not server.requests


async def test_with_a_tokenizer_at_hand_the_server_is_asked_for_scores_only():
    async with Server(replying(scored(0.5, 0.25))) as server:
        prm = RemotePRM("prm", Endpoint(server.url), format=LABELS, tokenize=letters, context=17)
        (score,) = await prm.score([TWO])
        assert score.rewards == (0.5, 0.25)
        assert [request.path for request in server.requests] == ["/generative_scoring"]
        with pytest.raises(VerifierError, match="does not fit into"):
            await prm.score([TWO + Step("more")])


# Failures.


ROUTES = [
    (CLASSES, "pooling", "--runner pooling"),
    (LABELS, "generative_scoring", "or route='completions'"),
    (LABELS, "score", "needs SGLang"),
    (LABELS, "completions", "needs vLLM"),
    (SKYWORK, "embeddings", "plug-in"),
]


async def test_a_server_without_the_route_is_told_how_to_be_started():
    async with Server() as server:
        for form, route, hint in ROUTES:
            for status in (404, 401):
                server.script = [replying({"error": {"message": "told"}}, status)]
                prm = RemotePRM("prm", Endpoint(server.url), format=form, route=route, tokenize=letters, context=999)
                with pytest.raises(ConfigurationError, match=f"answered {status}: told") as caught:
                    await prm.score([TWO])
                assert (hint in str(caught.value)) == (status == 404), route


async def test_a_server_that_fails_is_a_models_error():
    with pytest.raises(ModelError, match="told 500"):
        await scores({"error": {"message": "told 500"}}, CLASSES, status=500)


async def test_no_call_is_made_that_the_budget_does_not_have():
    receipt = Receipt(reserve=lambda n: False)
    token = current.set(receipt)
    try:
        async with Server(replying({"tokens": [1], "max_model_len": 64})) as server:
            with pytest.raises(VerifierError, match="no call is left"):
                await RemotePRM("prm", Endpoint(server.url), format=TRL).score([TWO])
            assert not server.requests
    finally:
        current.reset(token)


async def test_a_score_that_fails_is_paid_for_and_counted_once():
    receipt = Receipt()
    token = current.set(receipt)
    try:
        with pytest.raises(VerifierError):
            await scores(rows([GOOD], tokens=21), CLASSES)
    finally:
        current.reset(token)
    assert receipt.usage == Usage(1, 21)


async def test_a_cancelled_score_hangs_up():
    async def never(request: Request) -> None:
        await asyncio.Event().wait()

    async with Server(never) as server:
        scoring = asyncio.ensure_future(RemotePRM("prm", Endpoint(server.url), format=TRL).score([TWO]))
        while not server.running:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        scoring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scoring
        while server.running:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert server.gone == len(server.requests) > 0


# Settings.


async def test_no_states_cost_nothing_and_a_state_without_steps_cannot_be_scored():
    prm = RemotePRM("prm", Endpoint("http://127.0.0.1:9/v1"), format=CLASSES)
    assert await prm.score([]) == []
    with pytest.raises(VerifierError, match="the state has none"):
        await prm.score([State("1 + 1?")])


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("prm", {}, "give format="),
        ("launch/ThinkPRM-1.5B", {}, "use GenerativePRM"),
        ("Qwen/Qwen2.5-Math-PRM-7B", {"route": "score"}, "asked by pooling"),
        ("math-psa", {"route": "pooling"}, "asked by generative_scoring or score or completions"),
        ("math-psa", {"memory": 0}, "at least 1"),
        ("math-psa", {"context": -1}, "at least 1"),
    ],
)
def test_settings_that_cannot_work_say_so(model, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        RemotePRM(model, Endpoint("http://127.0.0.1:9/v1"), **settings)


def test_the_identity_names_all_that_changes_a_score():
    here, there = Endpoint("http://127.0.0.1:9/v1"), Endpoint("http://127.0.0.1:8/v1")
    prms = [
        RemotePRM("math-psa", here),
        RemotePRM("math-psa", there),
        RemotePRM("math-psa-2", here),
        RemotePRM("math-psa", here, route="completions"),
        RemotePRM("math-psa", here, format=MATH_SHEPHERD),
        RemotePRM("math-psa", here, format=LABELS),
    ]
    assert len({prm.identity for prm in prms}) == len(prms)
    assert RemotePRM("math-psa", here).identity == prms[0].identity


async def test_the_bound_grows_with_what_is_asked_and_learns_what_a_byte_costs():
    endpoint = Endpoint("http://127.0.0.1:9/v1")
    assert RemotePRM("prm", endpoint, format=CLASSES).bound is None
    # "{question}\n" and "1 + 1?" are 17 bytes, "count<m>" 8, the mark of a step to come 3 and its text 20 tokens
    assert RemotePRM("prm", endpoint, format=CLASSES, step_tokens=20).bound(ONE, 4, 2) == Usage(
        1, 4 * (17 + 8 + 2 * 23)
    )
    labels = RemotePRM("prm", endpoint, format=LABELS, step_tokens=20)
    assert labels.bound(ONE, 4, 2) == Usage(1, 4 * (48 + 71), 8)
    labels.context = 50
    assert labels.bound(ONE, 4, 2) == Usage(1, 4 * (48 + 50), 8)
    async with Server(replying(rows([GOOD], tokens=8))) as server:
        prm = RemotePRM("prm", Endpoint(server.url), format=CLASSES, step_tokens=20)
        await prm.score([ONE])  # 15 bytes in all
        assert prm.bound(ONE, 1, 1) == Usage(1, math.ceil(8 / 15 * 1.05 * 28 + 20))


def test_requests_are_those_of_the_servers_documents():
    texts = ["Q\na<m>", "Q\na<m>b<m>"]
    assert rows_body("pooling", "prm", QWEN, texts) == {
        "model": "prm", "input": texts, "encoding_format": "float", "add_special_tokens": True,
    }  # fmt: skip
    assert rows_body("pooling", "prm", SKYWORK, [[1, 2]])["use_activation"] is False
    assert "add_special_tokens" not in rows_body("embeddings", "prm", SKYWORK, [[1, 2]])
    assert labels_body("score", "prm", LABELS, texts) == {
        "model": "prm", "query": "", "items": texts, "label_token_ids": [5, 6], "apply_softmax": True,
    }  # fmt: skip
    assert labels_body("generative_scoring", "prm", LABELS, texts)["add_special_tokens"] is True

"""Requests to the servers that process reward models run on, and what their replies must look like.

    pooling             vLLM        rows of token-wise classifiers
    embeddings          vLLM 0.6.4  the same for Skywork's plug-in
    generative_scoring  vLLM        the share of a label among the next tokens
    score               SGLang      the same
    completions         vLLM        the same, from the log-probabilities of one generated token

A reply that is not exactly what was asked for is a VerifierError, never a guess.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from o1_reason.errors import VerifierError
from o1_reason.mdp import Usage

from .prm_formats import PRMFormat, Route

PATHS: dict[Route, str] = {
    "pooling": "/pooling",
    "embeddings": "embeddings",
    "generative_scoring": "/generative_scoring",
    "score": "score",
    "completions": "completions",
}
SERVED: dict[Route, str] = {
    "pooling": "a token-wise reward model is served by vLLM with --runner pooling",
    "embeddings": "Skywork's models are served by vLLM 0.6.4 with their own plug-in",
    "generative_scoring": "it needs vLLM (0.22 has it) and a model served as a generator; or route='completions'",
    "score": "it needs SGLang and a model served as a generator",
    "completions": "it needs vLLM and a model served as a generator",
}
_COUNTED = ("prompt_tokens", "completion_tokens")
_SLACK = 0.02  # half precision


def usage_of(reply: Any) -> Usage:
    """Tokens that the server counted, without the call itself."""
    usage = (reply.get("usage") if isinstance(reply, Mapping) else None) or {}
    counts = [usage.get(name) or 0 for name in _COUNTED] if isinstance(usage, Mapping) else [-1]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise VerifierError(f"the server's usage is no count of tokens: {usage!r}")
    return Usage(0, *counts)


def _listed(reply: Any, key: str, n: int) -> list[Any]:
    """The n entries of a reply's list, in the order of their `index`."""
    found = reply.get(key) if isinstance(reply, Mapping) else None
    if not isinstance(found, list):
        raise VerifierError(f"the reply has no list {key!r}: {str(reply)[:200]}")
    if found and all(isinstance(entry, Mapping) and isinstance(entry.get("index"), int) for entry in found):
        found = sorted(found, key=lambda entry: entry["index"])
        if [entry["index"] for entry in found] != list(range(n)):
            raise VerifierError(f"asked for {n} results, got those numbered {[entry['index'] for entry in found]}")
    if len(found) != n:
        raise VerifierError(f"asked for {n} results, got {len(found)}; is a proxy in between that splits batches?")
    return found


def _field(entry: Any, key: str) -> Any:
    if not isinstance(entry, Mapping) or key not in entry:
        raise VerifierError(f"a result has no {key!r}: {str(entry)[:200]}")
    return entry[key]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise VerifierError(f"a score must be a finite number; the server sent {value!r}")
    return float(value)


def probability(value: Any) -> float:
    """`value`, if it is in [0, 1]; raises VerifierError otherwise."""
    number = _number(value)
    if not 0 <= number <= 1:
        raise VerifierError(
            f"a score must be in [0, 1]; the server sent {number:g}, so it sends raw logits: serve the model with its "
            "activation (use_activation not off), or read it with a format that says reads='value'"
        )
    return number


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


# Rows.


def rows_body(route: Route, model: str, form: PRMFormat, inputs: Sequence[str] | Sequence[list[int]]) -> dict[str, Any]:
    """A request for the rows of all `inputs` in one batch."""
    body: dict[str, Any] = {"model": model, "input": list(inputs), "encoding_format": "float"}
    if route == "pooling" and form.rows == "marks":
        body["add_special_tokens"] = form.special_tokens
    if route == "pooling" and form.reads == "value":
        body["use_activation"] = False  # the sigmoid is ours
    return body


def read_rows(route: Route, reply: Any, n: int) -> list[list[Any]]:
    """For each input its rows."""
    key = "data" if route == "pooling" else "embedding"
    found = [_field(entry, key) for entry in _listed(reply, "data", n)]
    for rows in found:
        if not isinstance(rows, list):
            raise VerifierError(f"the rows of an input must be a list; got {str(rows)[:200]!r}")
    return found


def row_score(form: PRMFormat, row: Any) -> float:
    """The score that a row holds."""
    if form.reads == "value":
        numbers = row if isinstance(row, list) else [row]
        if len(numbers) != 1:
            raise VerifierError(f"a value head gives one number for a token; got {str(row)[:200]}")
        return sigmoid(_number(numbers[0]))
    if not isinstance(row, list) or len(row) <= form.good:
        raise VerifierError(f"a row must hold a probability for each class, {form.good} included; got {str(row)[:200]}")
    classes = [probability(value) for value in row]
    if len(classes) > 1 and abs(sum(classes) - 1) > _SLACK:
        raise VerifierError(f"the classes' probabilities {classes} do not add up to 1: is this the model's own head?")
    return classes[form.good]


# Labels.


def labels_body(route: Route, model: str, form: PRMFormat, texts: Sequence[str]) -> dict[str, Any]:
    """A request for the good label's share after each of `texts`.

    The texts go whole, as items after an empty query: the server would tokenize a query and its items apart, and what
    is tokenized in two pieces can be other tokens. Its prefix cache works on tokens and shares them all the same.
    """
    labels, special = list(form.labels), form.special_tokens
    if route == "completions":
        return {
            "model": model, "prompt": list(texts), "max_tokens": 1, "temperature": 0, "logprobs": len(labels),
            "logprob_token_ids": labels, "return_tokens_as_token_ids": True, "add_special_tokens": special,
        }  # fmt: skip
    body = {"model": model, "query": "", "items": list(texts), "label_token_ids": labels, "apply_softmax": True}
    return body | ({"add_special_tokens": special} if route == "generative_scoring" else {})


def read_labels(route: Route, reply: Any, form: PRMFormat, n: int) -> list[float]:
    """The good label's share, for each text."""
    if route == "generative_scoring":
        return [probability(_field(entry, "score")) for entry in _listed(reply, "data", n)]
    if route == "score":
        return [_share(row) for row in _listed(reply, "scores", n)]
    return [_next_token(form, entry) for entry in _listed(reply, "choices", n)]


def _share(row: Any) -> float:
    if not isinstance(row, list) or len(row) != 2 or abs(sum(map(probability, row)) - 1) > _SLACK:
        raise VerifierError(f"the shares of two labels must add up to 1; got {str(row)[:200]}")
    return row[0]


def _next_token(form: PRMFormat, choice: Any) -> float:
    logprobs = _field(choice, "logprobs")
    tops = logprobs.get("top_logprobs") if isinstance(logprobs, Mapping) else None
    first = tops[0] if isinstance(tops, list) and tops and isinstance(tops[0], Mapping) else {}
    names = [f"token_id:{label}" for label in form.labels]
    if not all(name in first for name in names):
        raise VerifierError(
            f"the reply has no log-probabilities of the tokens {list(form.labels)}, only of {list(first)[:5]}: the "
            "server does not know logprob_token_ids; use route='generative_scoring' (vLLM) or 'score' (SGLang)"
        )
    good, bad = (_number(first[name]) for name in names)
    return sigmoid(good - bad)

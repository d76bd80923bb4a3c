"""The reasoner as a deployable graph, configured from the environment; offline and without a key by default.

O1_REASON_POLICY        an adapter, e.g. "embedded" (the default)
O1_REASON_VERIFIER      an adapter, or "none"; default "embedded:prm+rules" with the embedded policy, else none
O1_REASON_STRATEGY      e.g. "mcts"; default "beam" with a verifier, "self_consistency" without
O1_REASON_MAX_TOKENS, O1_REASON_MAX_CALLS, O1_REASON_MAX_SECONDS, O1_REASON_MAX_USD, O1_REASON_MAX_NODES
                        no limit by default, but 4096 nodes
O1_REASON_LEDGER        a SQLite file; finished calls are never paid twice
O1_REASON_ASK_BELOW     pause for a person before an answer goes out whose confidence is less
O1_REASON_ASK_TOKENS    pause for a person each time that so many tokens more have been spent

The context of a run may name a strategy with its options, a seed, and lower limits: {"strategy": "mcts", "options":
{"simulations": 32}, "budget": {"max_tokens": 5000}}.
"""

from os import environ

from o1_reason import Ask, Budget, create_reasoner
from o1_reason.settings import from_environment

below, tokens = environ.get("O1_REASON_ASK_BELOW"), environ.get("O1_REASON_ASK_TOKENS")
ask = Ask(float(below) if below else None, Budget(max_tokens=int(tokens), max_nodes=None) if tokens else None)
graph = create_reasoner(
    **from_environment(environ), ask=ask if below or tokens else None, guarded=True, name="reason"
)  # fmt: skip

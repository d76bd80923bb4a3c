"""o1-reason: o1-style slow thinking for LangGraph and LangChain.

A policy proposes reasoning steps, a verifier scores them, a strategy selects, backtracks and stops, and one verified
answer comes out with its tree, its cost and its confidence.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .asking import Ask
from .budget import Budget
from .driver import search
from .errors import ConfigurationError, LedgerError, O1ReasonError, PolicyError, StrategyError, VerifierError
from .ledger import Ledger, SQLiteLedger, StoreLedger
from .mdp import Expansion, Proposals, Score, State, Step, Usage
from .protocols import Policy, Strategy, Verifier
from .result import Result
from .strategies import DVTS, MCTS, BeamSearch, BestOfN, ChainOfThought, DepthFirst, SelfConsistency
from .tree import Node, Tree
from .verifiers import Gate

if TYPE_CHECKING:
    from .chat_model import ChatReasoner
    from .context import ReasonerContext
    from .graph import create_reasoner
    from .middleware import ReasoningMiddleware
    from .tools import reasoning_tool

__version__ = "0.1.0"

__all__ = [
    "DVTS",
    "MCTS",
    "Ask",
    "BeamSearch",
    "BestOfN",
    "Budget",
    "ChainOfThought",
    "ChatReasoner",
    "ConfigurationError",
    "DepthFirst",
    "Expansion",
    "Gate",
    "Ledger",
    "LedgerError",
    "Node",
    "O1ReasonError",
    "Policy",
    "PolicyError",
    "Proposals",
    "ReasonerContext",
    "ReasoningMiddleware",
    "Result",
    "SQLiteLedger",
    "Score",
    "SelfConsistency",
    "State",
    "Step",
    "StoreLedger",
    "Strategy",
    "StrategyError",
    "Tree",
    "Usage",
    "Verifier",
    "VerifierError",
    "create_reasoner",
    "reasoning_tool",
    "search",
]

# What needs LangGraph or LangChain is imported when it is first used.
_LAZY = {
    "ChatReasoner": ".chat_model",
    "ReasonerContext": ".context",
    "ReasoningMiddleware": ".middleware",
    "create_reasoner": ".graph",
    "reasoning_tool": ".tools",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Search strategies, one algorithm a file."""

from .beam import BeamSearch
from .best_of_n import BestOfN
from .chain_of_thought import ChainOfThought
from .depth_first import DepthFirst
from .dvts import DVTS
from .mcts import MCTS
from .self_consistency import SelfConsistency

STRATEGIES = {
    "cot": ChainOfThought,
    "self_consistency": SelfConsistency,
    "best_of_n": BestOfN,
    "beam": BeamSearch,
    "dfs": DepthFirst,
    "dvts": DVTS,
    "mcts": MCTS,
}

__all__ = [
    "DVTS",
    "MCTS",
    "STRATEGIES",
    "BeamSearch",
    "BestOfN",
    "ChainOfThought",
    "DepthFirst",
    "SelfConsistency",
]

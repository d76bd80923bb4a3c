"""Learning from search: search makes data, data makes a better verifier and policy, and a gate keeps what is better."""

from .collection import collect
from .export import to_dataset, write_jsonl, write_parquet
from .files import read_rows
from .importers import read_math_aps, read_math_shepherd, read_prm800k
from .labelling import METHODS, Solved, label, solved
from .monte_carlo import MathShepherd, MiPS
from .omega_prm import OmegaPRM
from .problems import Checker, GoldChecker, Problem, VerifierChecker, exclude, read_problems
from .progress import Failure, Progress
from .star import STaR
from .store import RecordStore
from .tasks import run_tasks, shared_ledger
from .traces import TraceStore, trace_of, tree_of
from .trees import outcomes, preference_pairs, solutions, tree_outcomes, tree_values

__all__ = [
    "METHODS",
    "Checker",
    "Failure",
    "GoldChecker",
    "MathShepherd",
    "MiPS",
    "OmegaPRM",
    "Problem",
    "Progress",
    "RecordStore",
    "STaR",
    "Solved",
    "TraceStore",
    "VerifierChecker",
    "collect",
    "exclude",
    "label",
    "outcomes",
    "preference_pairs",
    "read_math_aps",
    "read_math_shepherd",
    "read_prm800k",
    "read_problems",
    "read_rows",
    "run_tasks",
    "shared_ledger",
    "solutions",
    "solved",
    "to_dataset",
    "trace_of",
    "tree_of",
    "tree_outcomes",
    "tree_values",
    "write_jsonl",
    "write_parquet",
]

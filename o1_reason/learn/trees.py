"""Training data out of search trees: no further call of a model is made."""

from collections.abc import AsyncIterator, Iterator, Mapping

from ..tree import Tree
from .problems import Checker, verdicts
from .rollouts import texts
from .rows import Label, Row, completion, from_prefixes, preference, prompt_of
from .traces import Trace, finished_states, problem_of, tree_of

VALUES, OUTCOMES, SOLUTIONS = "mcts", "tree_outcomes", "search"


def tree_values(trace: Trace, min_visits: int = 2) -> Iterator[Row]:
    """Soft labels: V(s) of the nodes visited at least `min_visits` times, N(s) behind each.

    For strategies whose values are means over what was found below (MCTS). Steps visited less often have no label.
    """
    tree = tree_of(trace)
    known = {
        i: (min(1.0, max(0.0, node.value)), node.visits)
        for i, node in enumerate(tree.nodes)
        if node.visits >= min_visits
    }
    yield from from_prefixes(prompt_of(problem_of(trace)), _by_path(tree, known), VALUES, trace["id"])


async def tree_outcomes(trace: Trace, checker: Checker) -> AsyncIterator[Row]:
    """Soft labels: the share of the finished paths through a step that are right.

    A path counts as often as it was sampled. What nothing finished passes through has no label. Raises
    ConfigurationError where `checker` cannot tell.
    """
    tree = tree_of(trace)
    known = _by_path(tree, await outcomes(trace, checker))
    for row in from_prefixes(prompt_of(problem_of(trace)), known, OUTCOMES, trace["id"]):
        yield row


async def outcomes(trace: Trace, checker: Checker) -> dict[int, tuple[float, int]]:
    """Per node with finished paths through it, the share of them that are right, and their number."""
    tree = tree_of(trace)
    ends = finished_states(tree)
    right = await verdicts(checker, problem_of(trace), [state for _, state in ends])
    counts: dict[int, list[int]] = {}
    for (end, _), good in zip(ends, right, strict=True):
        samples = tree.nodes[end].samples
        for i in tree.path(end):
            count = counts.setdefault(i, [0, 0])
            count[0] += good * samples
            count[1] += samples
    return {i: (good / all_, all_) for i, (good, all_) in sorted(counts.items())}


async def solutions(trace: Trace, checker: Checker, keep: int = 4, separator: str = "\n") -> AsyncIterator[Row]:
    """The right finished paths, at most `keep`, oldest first: for SFT, ReST, expert iteration."""
    tree, problem = tree_of(trace), problem_of(trace)
    states = [state for _, state in finished_states(tree)]
    right = await verdicts(checker, problem, states)
    for state in [state for state, good in zip(states, right, strict=True) if good][:keep]:
        yield completion(problem, state, SOLUTIONS, separator)


def preference_pairs(
    trace: Trace,
    margin: float = 0.3,
    keep: int = 8,
    *,
    values: Mapping[int, float] | None = None,
    separator: str = "\n",
) -> Iterator[Row]:
    """Next steps to prefer, for step-DPO (Lai et al. 2024, arXiv 2406.18629): siblings, the best against each other one
    that is worth less by at least `margin`. At most `keep` of a tree, the widest margins first.

    values    of nodes, in [0, 1]; None: what the search held them for, V(s) of visited nodes, else their reward (the
              first-play value). Nodes without one are left out. For values by outcome:
              ``{i: share for i, (share, _) in (await outcomes(trace, checker)).items()}``
    """
    tree, problem = tree_of(trace), problem_of(trace)
    if values is None:
        held = {node.id: node.value if node.visits else node.reward for node in tree.nodes}
        values = {i: value for i, value in held.items() if value is not None}
    found: list[tuple[float, int, int]] = []
    for parent in tree.nodes:
        children = [i for i in parent.children if i in values]
        best = max(children, key=lambda i: values[i], default=0)  # of equals the oldest
        found += [(gap, best, i) for i in children if (gap := values[best] - values[i]) >= margin and gap > 0]
    for gap, better, worse in sorted(found, key=lambda pair: (-pair[0], *pair[1:]))[:keep]:
        *path, chosen = texts(tree.state(better))
        rejected = texts(tree.state(worse))[-1]
        yield preference(problem, tuple(path), chosen, rejected, gap, separator)


def _by_path(tree: Tree, known: Mapping[int, tuple[float, int]]) -> dict[tuple[str, ...], Label]:
    return {tuple(step.text for step in tree.steps(i)): label for i, label in known.items()}

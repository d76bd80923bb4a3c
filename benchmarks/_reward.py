"""A reward model measured on validation puzzles, ranks 801-900: against the exact solver, and in beam search."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from o1_reason_embedded import EmbeddedLearner
from o1_reason_embedded.puzzle import parse, solves
from o1_reason_embedded.train.traces import ranked_puzzles

from o1_reason import Policy, Verifier, search
from o1_reason.audit.metrics import Pair, area, calibration
from o1_reason.mdp import State

LEARNER = EmbeddedLearner()
QUESTIONS = [" ".join(map(str, numbers)) for numbers in ranked_puzzles()[800:900]]
MEASURES = ("AUC, step 1", "AUC, step 2", "ECE", "beam %", "tokens")


async def states(policy: Policy, questions: Sequence[str]) -> list[State]:
    """Distinct states after one step and two, sampled from the policy at temperature 1.3."""
    found: list[State] = []
    for number, question in enumerate(questions):
        for seed in range(2):
            proposals = await policy.propose(State(question), 12, 2, temperature=1.3, seed=1000 * number + seed)  # type: ignore[call-arg]
            for steps in proposals.candidates:
                found += [State(question, steps[:1]), State(question, steps[:2])]
    return list(dict.fromkeys(found))


async def judged(verifier: Verifier, solver: Verifier, drawn: Sequence[State]) -> tuple[list[Pair], list[str]]:
    scores, truth = await verifier.score(drawn), await solver.score(drawn)
    pairs = [(score.rewards[-1], exact.rewards[-1] == 1) for score, exact in zip(scores, truth, strict=True)]
    return pairs, [state.question for state in drawn]


async def beam(policy: Policy, verifier: Verifier, questions: Sequence[str]) -> tuple[list[float], float]:
    """Of each question whether it is solved; completion tokens per question."""
    found = [await search(question, policy, verifier, "beam", seed=0) for question in questions]
    right = [float(solves(parse(q), r.answer or "")) for q, r in zip(questions, found, strict=True)]
    return right, statistics.mean(r.policy_usage.completion_tokens for r in found)


async def measures(policy: Policy, weights: Path, questions: Sequence[str], drawn: Sequence[State]) -> list[str]:
    """`MEASURES` of the reward model in a folder; standard errors are over puzzles."""
    verifier = LEARNER.verifier(weights)
    areas: list[str] = []
    for depth in (1, 2):
        pairs, clusters = await judged(verifier, LEARNER.solver(), [s for s in drawn if len(s.steps) == depth])
        under = area(pairs, clusters)
        areas.append("-" if under is None else f"{under.value:.3f} ± {(under.high - under.low) / 3.92:.3f}")
    fit = calibration((await judged(verifier, LEARNER.solver(), drawn))[0])
    right, tokens = await beam(policy, verifier, questions)
    error = float(np.std(right, ddof=1)) / len(right) ** 0.5
    found = [*areas, "-" if fit is None else f"{fit.ece:.3f}"]
    found += [f"{100 * statistics.mean(right):.0f} ± {100 * error:.1f}", f"{tokens:.0f}"]
    print(weights.name, *found, sep="  ", file=sys.stderr, flush=True)
    return found

"""Labelled solutions of puzzles, as JSON lines: sampled from the embedded policy, each step checked by exact search.

    python examples/make_labelled_solutions.py > labelled.jsonl
    o1-reason audit-verifier labelled.jsonl --verifier embedded

A step is right if it follows the rules and the target can still be reached from there, in steps of the same form.
"""

import argparse
import asyncio
import json
from functools import cache
from importlib.resources import files
from itertools import permutations

from o1_reason_embedded import EmbeddedPolicy
from o1_reason_embedded.puzzle import parse, parse_step, solves

from o1_reason import State, Step


@cache
def solvable(left: tuple[int, ...], target: int) -> bool:
    """Whether `left` can be combined to `target`, over whole numbers from 0."""
    if len(left) == 1:
        return left[0] == target
    for a, b, *rest in permutations(left):
        made = {a + b, a * b, *([a - b] if a >= b else []), *([a // b] if b and a % b == 0 else [])}
        if any(solvable(tuple(sorted([*rest, value])), target) for value in made):
            return True
    return False


def labels(question: str, steps: tuple[Step, ...]) -> list[bool]:
    left, right, target, found = parse(question).numbers, True, parse(question).target, []
    for move in (parse_step(step.text) for step in steps):
        right = right and move is not None and move.legal(left) and solvable(tuple(sorted(move.left)), target)
        left = move.left if move else left
        found.append(right)
    return found


async def main(first: int, last: int, samples: int, seed: int) -> None:
    policy = EmbeddedPolicy()
    lines = (files("o1_reason_embedded") / "puzzles24.txt").read_text().splitlines()
    for rank, question in enumerate(lines[first - 1 : last], first):
        proposals = await policy.propose(State(question), samples + 4, max_steps=9, seed=seed + rank)
        for steps in proposals.candidates[:samples]:  # a few more, since malformed ones are dropped
            answer, texts = steps[-1].answer or "", [step.text for step in steps]
            right = {"correct": solves(parse(question), answer), "labels": labels(question, steps)}
            print(json.dumps({"question": question, "steps": texts, "answer": answer, "key": steps[-1].key, **right}))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--first", type=int, default=801, help="rank of the first puzzle")
    options.add_argument("--last", type=int, default=850, help="rank of the last puzzle")
    options.add_argument("--samples", type=int, default=8, help="solutions of each puzzle")
    options.add_argument("--seed", type=int, default=0, help="same seed, same solutions")
    asyncio.run(main(**vars(options.parse_args())))

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
    """Per step, whether it and all before it are right."""
    puzzle = parse(question)
    left, right, found = puzzle.numbers, True, []
    for move in (parse_step(step.text) for step in steps):
        right = right and move is not None and move.legal(left) and solvable(tuple(sorted(move.left)), puzzle.target)
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
    for name, default, what in (
        ("first", 801, "rank of the first puzzle"), ("last", 850, "rank of the last one"),
        ("samples", 8, "solutions of each"), ("seed", 0, "of the samples"),
    ):  # fmt: skip
        options.add_argument(f"--{name}", type=int, default=default, help=f"{what}; {default}")
    asyncio.run(main(**vars(options.parse_args())))

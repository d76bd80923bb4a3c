"""A policy and a verifier of your own: which of these numbers add up to the target?

Nothing but two small classes is needed. Here the policy is ten lines of Python; with a language model, `propose`
prompts it with `state.question` and `state.text` and parses the next step out of its reply.
"""

import asyncio
from collections.abc import Sequence

from o1_reason import DepthFirst, Proposals, Score, State, Step, Usage, search


def read(state: State) -> tuple[list[int], int, list[int]]:
    """Numbers, target and what was taken so far, of a question such as "3 34 4 12 5 2 = 21"."""
    numbers, target = state.question.split("=")
    return [int(n) for n in numbers.split()], int(target), [int(step.text) for step in state.steps]


class TakeOne:
    """Proposes to take one of the numbers that are left, the greatest first."""

    identity = "take-one/1"  # lets a ledger keep its calls

    async def propose(self, state: State, n: int, max_steps: int = 1, *, temperature: float | None = None) -> Proposals:
        numbers, target, taken = read(state)
        smaller = sorted((m for m in numbers if not taken or m < taken[-1]), reverse=True)
        steps: list[tuple[Step, ...]] = []
        for number in smaller[:n]:
            done = sum(taken) + number == target
            answer = " + ".join(map(str, [*taken, number])) if done else None
            steps.append((Step(str(number), terminal=done, answer=answer),))
        return Proposals(tuple(steps), Usage(calls=1))


class NotTooMuch:
    """1 while the sum is within the target, 0 beyond it."""

    async def score(self, states: Sequence[State]) -> Sequence[Score]:
        return [Score((float(sum(taken) <= target),)) for _, target, taken in map(read, states)]


async def main() -> None:
    result = await search("3 34 4 12 5 2 = 21", TakeOne(), NotTooMuch(), DepthFirst(branch=6))
    print(result.answer, f"found in {len(result.tree) - 1} nodes and {result.usage.calls} calls")


if __name__ == "__main__":
    asyncio.run(main())

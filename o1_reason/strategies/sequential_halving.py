"""Sequential halving (Karnin et al. 2013) as Gumbel search uses it at the root (Danihelka et al. 2022, "Policy
improvement by planning with Gumbel", section 4 and algorithm 1)."""

from functools import lru_cache
from math import ceil, log2


@lru_cache(maxsize=256)
def considered_visits(actions: int, simulations: int) -> tuple[int, ...]:
    """For each simulation, how many visits the action it goes to must have had before.

    There are ceil(log2 m) rounds with m, m/2, m/4 ... 2 actions; a round gives each of its k actions
    max(1, floor(simulations / (ceil(log2 m) k))) visits; the last two go on until the simulations are used up.

    >>> considered_visits(4, 12)
    (0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4)
    """
    if actions <= 1:
        return tuple(range(simulations))
    rounds = ceil(log2(actions))
    visits = [0] * actions
    sequence: list[int] = []
    considered = actions
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (rounds * considered))):
            sequence.extend(visits[:considered])
            for i in range(considered):
                visits[i] += 1
        considered = max(2, considered // 2)
    return tuple(sequence[:simulations])

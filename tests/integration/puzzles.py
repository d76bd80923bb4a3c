"""The test puzzles of the Tree-of-Thoughts paper, ranks 901 to 1000: for measuring only."""

from importlib.resources import files

_LINES = files("o1_reason_embedded").joinpath("puzzles24.txt").read_text().splitlines()
TEST = [tuple(map(int, line.split())) for line in _LINES[900:1000]]

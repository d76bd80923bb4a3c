"""Line and bar charts over [0, 1] x [0, 1], as inline SVG; colours are the page's CSS classes."""

from collections.abc import Sequence
from html import escape

Point = tuple[float, float]
LEFT, TOP, SIZE_X, SIZE_Y, RIGHT, BOTTOM = 52, 12, 360, 260, 24, 46
TICKS = [(k / 5, f"{20 * k} %") for k in range(6)]


class Chart:
    """A chart to which marks are added, in the order in which they are to be painted."""

    def __init__(self, title: str, x_label: str, y_label: str, x_ticks: Sequence[tuple[float, str]] = TICKS) -> None:
        self._title = escape(title)
        self._marks: list[str] = []
        bottom = TOP + SIZE_Y
        for at, text in TICKS:
            self._add(f'<line class="grid" x1="{LEFT}" x2="{LEFT + SIZE_X}" y1="{_y(at)}" y2="{_y(at)}"/>')
            self._add(f'<text class="tick end" x="{LEFT - 6}" y="{_y(at) + 4}">{text}</text>')
        for at, text in x_ticks:
            self._add(f'<text class="tick mid" x="{_x(at)}" y="{bottom + 16}">{escape(text)}</text>')
        self._add(f'<text class="name mid" x="{_x(0.5)}" y="{bottom + 38}">{escape(x_label)}</text>')
        self._add(f'<text class="name mid" transform="translate(12 {_y(0.5)}) rotate(-90)">{escape(y_label)}</text>')

    def _add(self, mark: str) -> None:
        self._marks.append(mark)

    def line(self, points: Sequence[Point], kind: str) -> None:
        self._add(f'<polyline class="line {kind}" points="{_path(points)}"/>')

    def band(self, low: Sequence[Point], high: Sequence[Point], kind: str) -> None:
        """The area between two lines."""
        self._add(f'<polygon class="band {kind}" points="{_path([*low, *reversed(high)])}"/>')

    def dots(self, points: Sequence[Point], kind: str, tips: Sequence[str], areas: Sequence[float] = ()) -> None:
        """Points, each with a text that shows under the pointer; `areas` in [0, 1] make some larger than others."""
        for (x, y), tip, area in zip(points, tips, areas or [0.2] * len(points), strict=True):
            title = f"<title>{escape(tip)}</title>"
            r = round(2 + 4.5 * area**0.5, 1)
            self._add(f'<circle class="dot {kind}" cx="{_x(x)}" cy="{_y(y)}" r="{r}">{title}</circle>')

    def bar(self, left: float, right: float, height: float, kind: str, tip: str) -> None:
        x, width = _x(left) + 1, _x(right) - _x(left) - 2
        y, tall = _y(height), _y(0) - _y(height)
        self._add(
            f'<rect class="bar {kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{tall:.1f}">'
            f"<title>{escape(tip)}</title></rect>"
        )

    def render(self) -> str:
        box = f"0 0 {LEFT + SIZE_X + RIGHT} {TOP + SIZE_Y + BOTTOM}"
        return f'<svg role="img" aria-label="{self._title}" viewBox="{box}">{"".join(self._marks)}</svg>'


def _x(value: float) -> float:
    return round(LEFT + value * SIZE_X, 1)


def _y(value: float) -> float:
    return round(TOP + (1 - value) * SIZE_Y, 1)


def _path(points: Sequence[Point]) -> str:
    return " ".join(f"{_x(x)},{_y(y)}" for x, y in points)

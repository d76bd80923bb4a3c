"""Counters in Prometheus' text format, version 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from bisect import bisect_left
from collections.abc import Mapping

from ..mdp import Usage

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)  # upper bounds of the buckets

HELP = {
    "o1_reason_requests_total": ("counter", "HTTP requests by status; gone: the client left before there was one."),
    "o1_reason_refused_total": ("counter", "Searches not admitted: busy, or closing."),
    "o1_reason_searches_total": ("counter", "Searches that have ended, queued ones included, by outcome."),
    "o1_reason_searches_running": ("gauge", "Searches under way."),
    "o1_reason_searches_waiting": ("gauge", "Searches admitted that wait for a free place."),
    "o1_reason_model_calls_total": ("counter", "Model calls by role, cancelled and failed ones included."),
    "o1_reason_tokens_total": ("counter", "Tokens by role and kind, cancelled and failed calls included."),
    "o1_reason_dollars_total": ("counter", "Dollars by role, as far as prices are known."),
    "o1_reason_search_seconds": ("histogram", "Seconds from a search's start to its end, time in the queue left out."),
}

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """What a server has done since it started. Not thread-safe: one event loop."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Labels, float]] = {name: {} for name, (kind, _) in HELP.items() if kind != "gauge"}
        self._buckets: dict[Labels, list[int]] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Add to a counter."""
        counts, key = self._counts[name], tuple(labels.items())
        counts[key] = counts.get(key, 0) + value

    def spent(self, model: str, role: str, usage: Usage) -> None:
        """What a search's policy or verifier cost."""
        self.add("o1_reason_model_calls_total", usage.calls, model=model, role=role)
        self.add("o1_reason_tokens_total", usage.prompt_tokens, model=model, role=role, kind="prompt")
        self.add("o1_reason_tokens_total", usage.completion_tokens, model=model, role=role, kind="completion")
        if usage.cost_usd is not None:
            self.add("o1_reason_dollars_total", usage.cost_usd, model=model, role=role)

    def took(self, model: str, seconds: float) -> None:
        """How long a search ran."""
        self.add("o1_reason_search_seconds", seconds, model=model)
        buckets = self._buckets.setdefault((("model", model),), [0] * (len(SECONDS) + 1))
        buckets[bisect_left(SECONDS, seconds)] += 1

    def total(self, name: str, **labels: str) -> float:
        """The sum of a counter over all series that have these labels."""
        return sum(value for key, value in self._counts[name].items() if set(labels.items()) <= set(key))

    def render(self, gauges: Mapping[str, float]) -> str:
        """The whole page; `gauges` are read now."""
        lines: list[str] = []
        for name, (kind, text) in HELP.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            if kind == "gauge":
                lines.append(f"{name} {gauges[name]:g}")
            elif kind == "histogram":
                lines += self._histogram(name)
            else:
                lines += [f"{name}{_labels(key)} {value!r}" for key, value in self._counts[name].items()]
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> list[str]:
        lines: list[str] = []
        for key, buckets in self._buckets.items():
            total = 0
            for bound, count in zip((*map(str, SECONDS), "+Inf"), buckets, strict=True):
                total += count
                lines.append(f"{name}_bucket{_labels((*key, ('le', bound)))} {total}")
            lines += [f"{name}_sum{_labels(key)} {self._counts[name][key]!r}", f"{name}_count{_labels(key)} {total}"]
        return lines


def _labels(key: Labels) -> str:
    if not key:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in key) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

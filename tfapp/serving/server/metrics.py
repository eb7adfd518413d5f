"""What the server counts, in the text format of Prometheus and under TensorFlow Serving's names."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping

_MICROSECONDS = tuple(round(10 * 1.8**power) for power in range(33))
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Counts values by size.

    Args:
        bounds: Upper bounds of the sizes, ascending.
    """

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts a value.

        Args:
            value: The value, in the unit of the bounds.
        """
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: Labels) -> Iterable[str]:
        """Writes the histogram.

        Args:
            name: Its name.
            labels: Its labels.

        Returns:
            Lines of Prometheus' text format.
        """
        count = 0
        for bound, found in zip((*self.bounds, None), self.counts, strict=True):
            count += found
            least = "+Inf" if bound is None else f"{bound:g}"
            yield f"{name}_bucket{_worded((*labels, ('le', least)))} {count}"
        yield f"{name}_sum{_worded(labels)} {self.total:g}"
        yield f"{name}_count{_worded(labels)} {count}"


class Metrics:
    """Everything that is counted.

    Args:
        model: The model's name.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._requests: dict[Labels, int] = defaultdict(int)
        self._latency: dict[Labels, Histogram] = {}
        self._runtime = Histogram(_MICROSECONDS)
        self._rows = Histogram(_ROWS)

    def answered(self, *, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Counts a request.

        Args:
            api: ``"predict"``, ``"classify"`` and so on.
            entrypoint: ``"REST"`` or ``"GRPC"``.
            status: The name of its status code.
            seconds: How long it took.
        """
        self._requests[(("model_name", self.model), ("status", status))] += 1
        if status == "OK":
            labels = (("model_name", self.model), ("API", api), ("entrypoint", entrypoint))
            if labels not in self._latency:
                self._latency[labels] = Histogram(_MICROSECONDS)
            self._latency[labels].observe(seconds * 1e6)

    def computed(self, rows: int, seconds: float) -> None:
        """Counts what was computed for a request.

        Args:
            rows: Its rows.
            seconds: From the queue to the answer.
        """
        self._rows.observe(rows)
        self._runtime.observe(seconds * 1e6)

    def page(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Writes everything.

        Args:
            gauges: Help and value of what is not counted but looked up now, by name.

        Returns:
            Prometheus' text format.
        """
        lines = _head(":tensorflow:serving:request_count", "counter", "Requests by status.")
        lines += [
            f":tensorflow:serving:request_count{_worded(labels)} {count}"
            for labels, count in self._requests.items()
        ]
        lines += _head(":tensorflow:serving:request_latency", "histogram", "Microseconds of whole requests.")
        for labels, histogram in self._latency.items():
            lines += histogram.lines(":tensorflow:serving:request_latency", labels)
        own: Labels = (("model_name", self.model),)
        lines += _head(":tensorflow:serving:runtime_latency", "histogram", "Microseconds of queue and model.")
        lines += self._runtime.lines(":tensorflow:serving:runtime_latency", own)
        lines += _head("tfapp_request_rows", "histogram", "Texts or images of a request.")
        lines += self._rows.lines("tfapp_request_rows", own)
        for name, (text, value) in gauges.items():
            lines += [*_head(name, "gauge", text), f"{name}{_worded(own)} {value:g}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _worded(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}"

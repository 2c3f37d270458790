"""What the processes of a fleet report by OTLP, as the receiver of a test sees it.

Sums and histograms are cumulative, so that the newest report of each process says all; series of the same
name and attributes are added up over the processes.
"""

import threading
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Point:
    """One series of one process: a counter's or gauge's `value`; a histogram's sum, and its `count`."""

    name: str
    unit: str
    labels: Labels
    value: float
    count: int = 0


class Collector:
    """Keeps the newest report of every series of every process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[tuple[str, str, Labels], Point] = {}

    def take(self, request: Any) -> None:
        """Take an `ExportMetricsServiceRequest`."""
        with self._lock:
            for resource in request.resource_metrics:
                process = resource.resource.SerializeToString(deterministic=True).hex()
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in _points(metric):
                            self._newest[process, point.name, point.labels] = point

    def points(self, name: str, **labels: str) -> list[Point]:
        """The series of this name that have at least these labels."""
        with self._lock:
            points = list(self._newest.values())
        return [
            point for point in points if point.name == name and labels.items() <= dict(point.labels).items()
        ]

    def total(self, name: str, **labels: str) -> float:
        """Their values together."""
        return sum(point.value for point in self.points(name, **labels))

    def count(self, name: str, **labels: str) -> int:
        """How many values histograms were given together."""
        return sum(point.count for point in self.points(name, **labels))


def _points(metric: Any) -> list[Point]:
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    if kind == "histogram":
        assert data.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
        return [
            Point(metric.name, metric.unit, _labels(point), point.sum, point.count)
            for point in data.data_points
        ]
    return [
        Point(metric.name, metric.unit, _labels(point), getattr(point, point.WhichOneof("value")))
        for point in data.data_points
    ]


def _labels(point: Any) -> Labels:
    return frozenset((attribute.key, attribute.value.string_value) for attribute in point.attributes)

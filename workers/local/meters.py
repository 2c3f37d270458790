"""What the demo's view knows of its workers: their own metrics, in this process or received over OTLP.

Histograms are kept as buckets, as OTLP sends them; a percentile is interpolated within its bucket.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA

from replication.metrics import CHANGES, INFLIGHT, LAG
from replication.ports import Telemetry

# Steps of a fifth from 1 ms to over 100 s: fine enough to be interpolated in.
_BOUNDS = tuple(0.001 * 1.2**step for step in range(64))

Labels = frozenset[tuple[str, str]]
Series = tuple[str, str, Labels]
"""Who reports it, the metric's name, its labels."""


@dataclass(slots=True)
class Buckets:
    """A histogram: `counts` has one entry more than `bounds` (the upper ends, in the metric's unit)."""

    bounds: Sequence[float] = _BOUNDS
    counts: list[int] = field(default_factory=list)
    largest: float = 0.0

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.largest = max(self.largest, value)

    def absorb(self, other: "Buckets") -> None:
        """Count all of another's, which has the same bounds."""
        self.counts = [mine + others for mine, others in zip(self.counts, other.counts, strict=True)]
        self.largest = max(self.largest, other.largest)

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The value that `share` of all are at most; None where there are none."""
        wanted = share * self.count
        if not wanted:
            return None
        passed, lower = 0, 0.0
        for count, bound in zip(self.counts, (*self.bounds, self.largest), strict=True):
            if count and passed + count >= wanted:
                upper = max(lower, min(bound, self.largest or bound))
                return lower + (upper - lower) * (wanted - passed) / count
            passed, lower = passed + count, bound
        return self.largest


@dataclass(frozen=True, slots=True)
class Flow:
    """What has gone from one replica to another. Lags are in seconds, None where nothing was measured."""

    source: str
    target: str
    lag_p50: float | None
    lag_p99: float | None
    outcomes: Counter[str]


class Meters(Telemetry):
    """Collects metrics; any number of threads may report and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[Series, int] = {}
        self._histograms: dict[Series, Buckets] = {}
        self._gauges: dict[Series, float] = {}

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """See `Telemetry.count`."""
        series = ("", name, frozenset(labels.items()))
        with self._lock:
            self._counters[series] = self._counters.get(series, 0) + amount

    def measure(self, name: str, value: float, /, **labels: str) -> None:
        """See `Telemetry.measure`."""
        series = ("", name, frozenset(labels.items()))
        with self._lock:
            self._histograms.setdefault(series, Buckets()).add(max(0.0, value))

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """See `Telemetry.gauge`."""
        with self._lock:
            self._gauges["", name, frozenset(labels.items())] = value

    def take(self, request: Any) -> None:
        """Take an OTLP `ExportMetricsServiceRequest`."""
        with self._lock:
            for resource in request.resource_metrics:
                reporter = resource.resource.SerializeToString(deterministic=True).hex()
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        self._take_metric(reporter, metric)

    def flows(self) -> list[Flow]:
        """Every pair of replicas that something was reported of, by name."""
        lags: dict[tuple[str, str], Buckets] = {}
        outcomes: dict[tuple[str, str], Counter[str]] = {}
        with self._lock:
            for labels, buckets in _named(self._histograms, LAG):
                pair = labels["source"], labels["target"]
                lags.setdefault(pair, Buckets(buckets.bounds)).absorb(buckets)
            for labels, amount in _named(self._counters, CHANGES):
                # Capture counts echoes, which have no target.
                if "target" in labels:
                    pair = labels["source"], labels["target"]
                    outcomes.setdefault(pair, Counter())[labels["outcome"]] += amount
        nothing = Buckets()
        return [
            Flow(
                source,
                target,
                lags.get((source, target), nothing).quantile(0.5),
                lags.get((source, target), nothing).quantile(0.99),
                outcomes.get((source, target), Counter()),
            )
            for source, target in sorted(lags.keys() | outcomes.keys())
        ]

    def lag(self) -> Buckets:
        """The lag of all changes to all replicas."""
        whole = Buckets()
        with self._lock:
            for number, (_, buckets) in enumerate(_named(self._histograms, LAG)):
                if number == 0:
                    whole = Buckets(buckets.bounds)
                whole.absorb(buckets)
        return whole

    def held(self) -> Counter[str]:
        """How many messages the workers of each replica held when they last reported."""
        held: Counter[str] = Counter()
        with self._lock:
            for labels, value in _named(self._gauges, INFLIGHT):
                held[labels["target"]] += round(value)
        return held

    def outcomes(self) -> Counter[str]:
        """What became of all messages, at all replicas."""
        return sum((flow.outcomes for flow in self.flows()), Counter())

    def _take_metric(self, reporter: str, metric: Any) -> None:
        kind = metric.WhichOneof("data")
        if kind not in {"sum", "histogram", "gauge"}:
            return
        data = getattr(metric, kind)
        if kind == "gauge":
            self._take_gauge(reporter, metric.name, data)
            return
        grows = data.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
        for point in data.data_points:
            labels = frozenset((each.key, each.value.string_value) for each in point.attributes)
            series = (reporter, metric.name, labels)
            if kind == "sum":
                self._counters[series] = point.as_int + (self._counters.get(series, 0) if grows else 0)
            else:
                self._take_histogram(series, point, grows=grows)

    def _take_gauge(self, reporter: str, name: str, data: Any) -> None:
        for point in data.data_points:
            labels = frozenset((each.key, each.value.string_value) for each in point.attributes)
            self._gauges[reporter, name, labels] = getattr(point, point.WhichOneof("value") or "as_double")

    def _take_histogram(self, series: Series, point: Any, *, grows: bool) -> None:
        buckets = Buckets(tuple(point.explicit_bounds), list(point.bucket_counts), point.max)
        if grows and series in self._histograms:
            buckets.absorb(self._histograms[series])
        self._histograms[series] = buckets


def _named(metrics: dict[Series, Any], name: str) -> Iterator[tuple[dict[str, str], Any]]:
    return ((dict(labels), value) for (_, named, labels), value in metrics.items() if named == name)


def milliseconds(seconds: float | None) -> float | None:
    """For people: a lag in milliseconds, to the tenth."""
    return None if seconds is None else round(seconds * 1000, 1)


def total(outcomes: Counter[str], names: Iterable[str]) -> int:
    """How many messages had one of these outcomes."""
    return sum(outcomes[name] for name in names)

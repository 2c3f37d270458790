"""Telemetry that keeps everything in memory, for tests, the demo and simulations.

Strict where OpenTelemetry is lenient: a metric that is not in `replication.metrics`, another instrument, or a
label that the metric does not have raises `AssertionError`.
"""

import threading
from collections import Counter, defaultdict

from replication.metrics import METRICS, Instrument
from replication.ports import Telemetry

Labels = frozenset[tuple[str, str]]


class MemoryTelemetry(Telemetry):
    """Counts and values by metric and labels; any number of threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: dict[str, Counter[Labels]] = defaultdict(Counter)
        self.values: dict[str, list[tuple[float, Labels]]] = defaultdict(list)
        self.levels: dict[str, dict[Labels, float]] = defaultdict(dict)

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """See `Telemetry.count`."""
        with self._lock:
            self.counts[name][checked(name, Instrument.COUNTER, labels)] += amount

    def measure(self, name: str, value: float, /, **labels: str) -> None:
        """See `Telemetry.measure`."""
        with self._lock:
            self.values[name].append((value, checked(name, Instrument.HISTOGRAM, labels)))

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """See `Telemetry.gauge`."""
        with self._lock:
            self.levels[name][checked(name, Instrument.GAUGE, labels)] = value

    def total(self, name: str, **labels: str) -> int:
        """The sum of a counter over all series that have these labels."""
        wanted = labels.items()
        with self._lock:
            return sum(amount for series, amount in self.counts[name].items() if wanted <= set(series))


def checked(name: str, instrument: Instrument, labels: dict[str, str]) -> Labels:
    """A series' labels; raises `AssertionError` for what the list of metrics does not have."""
    metric = METRICS.get(name)
    if metric is None:
        raise AssertionError(f"no metric is called {name!r}: add it to replication/metrics.py")
    if metric.instrument is not instrument:
        raise AssertionError(f"{name} is a {metric.instrument}, used as a {instrument}")
    if unknown := labels.keys() - set(metric.labels):
        raise AssertionError(f"{name} has no label {', '.join(sorted(unknown))}; it has {metric.labels}")
    return frozenset(labels.items())

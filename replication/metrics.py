"""Every metric, once: name, instrument, unit, labels and meaning.

Code refers to a metric by its constant here. The OpenTelemetry adapter takes instrument, unit and description
from here, and the table in ARCHITECTURE.md is written from here. Labels are bounded: replica ids, collection
ids, codes; never document ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Instrument(StrEnum):
    """How a metric adds up."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `unit` is UCUM's (https://ucum.org/ucum); empty where things are counted."""

    name: str
    instrument: Instrument
    unit: str
    labels: tuple[str, ...]
    text: str


_METRICS: dict[str, Metric] = {}
METRICS: Mapping[str, Metric] = MappingProxyType(_METRICS)
"""All of them by name, in the order of this file."""


def _metric(name: str, instrument: Instrument, unit: str, labels: str, text: str) -> str:
    _METRICS[name] = Metric(name, instrument, unit, tuple(labels.split()), text)
    return name


def _counter(name: str, labels: str, text: str) -> str:
    return _metric(name, Instrument.COUNTER, "", labels, text)


def _histogram(name: str, unit: str, labels: str, text: str) -> str:
    return _metric(name, Instrument.HISTOGRAM, unit, labels, text)


def _gauge(name: str, unit: str, labels: str, text: str) -> str:
    return _metric(name, Instrument.GAUGE, unit, labels, text)


_PAIR = "source target collection"

# ── replication ───────────────────────────────────────────────────────────────────────────────────────────────

LAG = _histogram("firefleet.replication.lag", "s", _PAIR, "target's commit time minus the source's")
RECORD_AGE = _histogram("firefleet.replication.record_age", "s", _PAIR, "from the commit until a worker has it")
OLDEST_UNAPPLIED = _gauge(
    "firefleet.replication.oldest_unapplied",
    "s",
    "target",
    "age of the oldest message that a worker holds; grows while nothing is applied",
)
CHANGES = _counter(
    "firefleet.changes",
    f"{_PAIR} outcome",
    "changes by outcome: applied, stale, duplicate, echo, conflict, violation, dead_letter",
)
CONFLICTS = _counter("firefleet.conflicts", f"{_PAIR} policy winner", "conflicts by policy and winning replica")
DEAD_LETTERS = _counter("firefleet.dead_letters", "reason target", "messages that can never be applied")
METADATA_FAULTS = _counter("firefleet.metadata.faults", _PAIR, "versions that were not believed")

# ── the worker ────────────────────────────────────────────────────────────────────────────────────────────────

BATCH_SIZE = _histogram("firefleet.batch.size", "1", "target", "messages that one pull brought")
APPLY_DURATION = _histogram(
    "firefleet.apply.duration", "s", "target", "from a pull to its last acknowledgement"
)
INFLIGHT = _gauge("firefleet.inflight", "", "target", "messages that a worker holds")
RETRIES = _counter("firefleet.retries", "target", "times a batch was held and tried again")
FAILURES = _counter("firefleet.failures", "target", "messages that made the worker itself fail")

# ── capture ───────────────────────────────────────────────────────────────────────────────────────────────────

CAPTURE_REQUESTS = _counter("firefleet.capture.requests", "status", "requests by HTTP status")
CAPTURE_DURATION = _histogram("firefleet.capture.duration", "s", "", "from a request until its answer")
CAPTURE_LARGE_EVENTS = _counter(
    "firefleet.capture.large_events", "source", "events near Eventarc's limit of 512 KB"
)
CAPTURE_UNCHANGED = _counter(
    "firefleet.capture.unchanged", "", "events in which nothing changed; only emulators send them"
)

# ── analytics ─────────────────────────────────────────────────────────────────────────────────────────────────

_TYPED = "target type"

ANALYTICS_RECEIVED = _counter("firefleet.analytics.received", _TYPED, "events received")
ANALYTICS_WRITTEN = _counter("firefleet.analytics.written", _TYPED, "events stored")
ANALYTICS_DUPLICATE = _counter("firefleet.analytics.duplicate", _TYPED, "events that were there already")
ANALYTICS_THROTTLED = _counter("firefleet.analytics.throttled", _TYPED, "events over their user's rate")
ANALYTICS_DEAD_LETTERED = _counter(
    "firefleet.analytics.dead_lettered", f"{_TYPED} reason", "events that can never be stored"
)
ANALYTICS_RELEASED = _counter(
    "firefleet.analytics.released", _TYPED, "events given back unwritten, to be delivered again"
)
ANALYTICS_FOREIGN = _counter(
    "firefleet.analytics.foreign", _TYPED, "events of another region; only emulators deliver them"
)
ANALYTICS_WRITES = _counter("firefleet.analytics.writes", "target", "billed document writes")
ANALYTICS_WRITES_SAVED = _counter(
    "firefleet.analytics.writes_saved", _TYPED, "writes saved against one for each valid message"
)
ANALYTICS_WAREHOUSE_REFUSED = _counter(
    "firefleet.analytics.warehouse_refused", _TYPED, "copies that the warehouse's topic refused"
)
ANALYTICS_RETRIES = _counter("firefleet.analytics.retries", "target", "times a flush was tried again")
ANALYTICS_BUFFER_DEPTH = _gauge("firefleet.analytics.buffer.depth", "", "target", "events held")
ANALYTICS_BUFFER_BYTES = _gauge("firefleet.analytics.buffer.bytes", "By", "target", "bytes held")
ANALYTICS_BUFFER_OLDEST = _gauge("firefleet.analytics.buffer.oldest", "s", "target", "age of the oldest event")
ANALYTICS_FLUSH_DURATION = _histogram("firefleet.analytics.flush.duration", "s", "target", "one flush")
ANALYTICS_FLUSH_SIZE = _histogram("firefleet.analytics.flush.size", "1", "target", "events of one flush")

# ── the metrics themselves ────────────────────────────────────────────────────────────────────────────────────

CLAMPED = _counter("firefleet.clamped", "metric", "values below zero, counted as zero: a clock went back")


def table() -> str:
    """The list as a Markdown table, for the documentation."""
    rows = [
        f"| `{metric.name}` | {metric.instrument} | {metric.unit} | {_labels(metric)} | {metric.text} |"
        for metric in METRICS.values()
    ]
    return "\n".join(["| metric | is a | unit | labels | counts or measures |", "|---|---|---|---|---|", *rows])


def _labels(metric: Metric) -> str:
    return " ".join(f"`{label}`" for label in metric.labels) or "–"

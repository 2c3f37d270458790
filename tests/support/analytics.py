"""Settings, events and workers on memory adapters, for the tests of the analytics worker."""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from replication.adapters.memory import MemoryDatabase
from replication.adapters.memory_telemetry import MemoryTelemetry
from replication.analytics.buffer import Buffer, Fate, HeldEvent
from replication.analytics.packing import Output
from replication.analytics.schema import AnalyticsEvent, Schema
from replication.configuration.analytics import Analytics, parse_analytics
from replication.ports import Message, Received

REPLICAS = ("eu", "us")
T0 = 1_800_000_000_000_000
"""Publish times begin here, in microseconds since 1970: 2027-01-15T08:00:00Z."""

TYPES: dict[str, Any] = {
    "swipe": {
        "payload": {"target": "string", "session": "string"},
        "key": ["user", "target", "session"],
        "window": "24h",
        "ttl": "90d",
    },
    "page_view": {
        "payload": {"page": "string", "millis": "integer"},
        "optional": {
            "score": "number",
            "at": "timestamp",
            "device": "object",
            "tags": "array",
            "new": "boolean",
        },
    },
}


def settings(**section: Any) -> Analytics:
    """Valid settings with some keys replaced."""
    return parse_analytics({"types": TYPES, **section}, replicas=REPLICAS, topic="changes")


def schema(given: Analytics | None = None, *, replica: str = "eu") -> Schema:
    return Schema(given or settings(), replica=replica, replicas=frozenset(REPLICAS))


def swipe(event_id: str = "e1", **changes: Any) -> dict[str, Any]:
    body = {
        "id": event_id,
        "type": "swipe",
        "user": "ann",
        "time": "2027-01-15T08:00:00Z",
        "payload": {"target": "bob", "session": event_id},
    }
    return {**body, **changes}


def view(event_id: str = "e1", **changes: Any) -> dict[str, Any]:
    body = {
        "id": event_id,
        "type": "page_view",
        "user": "ann",
        "time": "2027-01-15T08:00:00Z",
        "payload": {"page": "home", "millis": 5},
    }
    return {**body, **changes}


def message(body: Mapping[str, Any], **attributes: str) -> Message:
    return Message(orjson.dumps(body), {"region": "eu", "type": str(body["type"]), **attributes})


def received(sent: Message, number: int = 1, *, published: int = T0, delivery: int = 1) -> Received:
    """Message `number` as its `delivery`-th delivery brings it."""
    return Received(sent, f"m{number}", f"a{number}.{delivery}", published)


@functools.cache
def _default_schema() -> Schema:
    return schema()


def held(body: Mapping[str, Any], number: int = 1, *, sampled: float = 1.0, published: int = T0) -> HeldEvent:
    sent = message(body)
    return HeldEvent(decoded(sent), received(sent, number, published=published), sampled)


def offer(buffer: Buffer, body: Mapping[str, Any], number: int, **delivered: int) -> Fate:
    sent = message(body)
    return buffer.offer(decoded(sent), received(sent, number, **delivered))


def decoded(sent: Message) -> AnalyticsEvent:
    return _default_schema().decode(sent)


def output(given: Analytics | None = None, *, batch: str = "w-1") -> Output:
    chosen = given or settings()
    return Output(
        prefix="projects/p/databases/eu/documents/",
        collection=chosen.collection,
        types=chosen.types,
        batch=batch,
    )


class Counts(MemoryTelemetry):
    """Sums of counters, by name alone and by name and type; the last value of each gauge."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: Counter[str] = Counter()
        self.by_type: Counter[tuple[str, str]] = Counter()
        self.measured: list[tuple[str, float]] = []
        self.gauges: dict[str, float] = {}

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        super().count(name, amount, **labels)
        with self._lock:
            self.sums[name.removeprefix("firefleet.analytics.")] += amount
            self.by_type[name.removeprefix("firefleet.analytics."), labels.get("type", "")] += amount

    def measure(self, name: str, value: float, /, **labels: str) -> None:
        super().measure(name, value, **labels)
        self.measured.append((name, value))

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        super().gauge(name, value, **labels)
        self.gauges[name] = value

    @property
    def settled(self) -> int:
        """How many messages have ended, one way or another."""
        return sum(
            self.sums[name] for name in ("written", "duplicate", "throttled", "dead_lettered", "released")
        )


def stored(database: MemoryDatabase, collection: str = "analytics_events") -> Iterator[Any]:
    """The collection's documents, by name."""
    return (one for one in database.documents() if f"/documents/{collection}/" in one.name)

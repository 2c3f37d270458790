"""What replication needs from the world: databases, subscriptions, publishers, telemetry.

The core names these and never an implementation; each has one adapter per backend in `replication.adapters`
(`firestore`, `pubsub`, `otel`, `memory`), all held to one contract suite in `tests/contract`. Writes and
documents cross as Firestore's own protobuf messages (`replication.documents.wire`), so nothing is converted
on the way.

Every call blocks until it has an answer or its deadline, and raises only errors of `replication.errors`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from replication.limits import DELIVERY_ATTEMPTS_MAX


class Found(NamedTuple):
    """A document as one read found it.

    `document` is a `google.firestore.v1.Document`, or None if it does not exist. Times are the database's own,
    in microseconds; `update_time` is 0 if the document does not exist.
    """

    path: str
    document: Any
    update_time: int
    read_time: int


class Status(IntEnum):
    """The gRPC status codes a write can have (https://grpc.io/docs/guides/status-codes)."""

    OK = 0
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    FAILED_PRECONDITION = 9


class Written(NamedTuple):
    """What became of one write of a `batch_write`: a gRPC status code, and the commit time if that is OK.

    Codes that are not in `Status` say that the database cannot take the write now.
    """

    code: int
    commit_time: int
    text: str = ""


class Database(Protocol):
    """One replica's database."""

    prefix: str
    """`projects/…/databases/…/documents/`: what its documents' full names begin with."""

    def read(self, paths: Sequence[str], *, timeout: float) -> list[Found]:
        """Read documents by relative path; one `Found` per path, in the order asked for.

        Strongly consistent; no path twice. Raises `Transient`; `Refused` when a path is invalid.
        """
        ...

    def batch_write(self, writes: Sequence[Any], *, timeout: float) -> list[Written]:
        """Apply independent writes, each with its own precondition and outcome, in no order.

        Not atomic; no document twice in one call. Never retried inside: after `Transient` any of them may or
        may not have landed. `Refused` when the database rejects the request as a whole: nothing was written.
        """
        ...

    def commit(self, writes: Sequence[Any], *, timeout: float) -> int:
        """Apply writes atomically; returns the one commit time of them all, in microseconds.

        `ConditionFailed` or `Refused`: nothing was written. `Transient`: all landed, or none, unknown which.
        """
        ...

    def close(self) -> None:
        """Release connections; no call may follow."""
        ...


class Message(NamedTuple):
    """What is published: CloudEvents' Pub/Sub binding in binary mode (attributes `ce-…`, data the event)."""

    data: bytes
    attributes: Mapping[str, str] = MappingProxyType({})


class Received(NamedTuple):
    """A message as one delivery brought it.

    `id` is the message's, the same in every delivery; `ack_id` is this delivery's. `publish_time` is in
    microseconds.
    """

    message: Message
    id: str
    ack_id: str
    publish_time: int = 0


class Subscription(Protocol):
    """A pull subscription: at least once, in no order."""

    def pull(self, limit: int, *, timeout: float) -> list[Received]:
        """Wait up to `timeout` seconds for messages and take up to `limit`; empty when none came.

        What is neither acknowledged nor extended within the subscription's deadline is delivered again.
        """
        ...

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Say that these are done. Success is not a promise that they will not be delivered again."""
        ...

    def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
        """Keep these from being delivered again for `seconds` from now; 0 releases them at once."""
        ...

    def close(self) -> None:
        """Release connections; no call may follow."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionSettings:
    """What a subscription is set to. Durations are in seconds; it never expires, even if unused.

    `delivery_attempts`: deliveries before Pub/Sub itself sends a message to `dead_letter_topic`. The default is
    the most it allows, because that is the last resort: the worker's own dead letters come first.
    """

    topic: str
    filter: str = ""
    ack_deadline: int = 60
    retention: int = 7 * 24 * 3600
    dead_letter_topic: str | None = None
    delivery_attempts: int = DELIVERY_ATTEMPTS_MAX
    backoff_min: int = 1
    backoff_max: int = 60


class Publisher(Protocol):
    """Publishes to one topic, unordered."""

    def submit(self, message: Message) -> "Future[str]":
        """Send a message; the future holds its id once Pub/Sub has it, or fails with `Transient`/`Refused`."""
        ...

    def close(self) -> None:
        """Send what is waiting and release connections; no call may follow."""
        ...


class Telemetry(Protocol):
    """Counts and measures, by the names in `replication.metrics`. Never blocks.

    Raises only for a name that is not in that list, which is a fault of this program. `labels` are bounded:
    replica ids, collection ids, codes; never document ids.
    """

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Add to a counter."""
        ...

    def measure(self, name: str, value: float, /, **labels: str) -> None:
        """Record one value of a histogram; in the metric's unit."""
        ...

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        """Set the current value of a gauge."""
        ...

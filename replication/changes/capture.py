"""Capture: what one event is to the fleet, and which replicas receive it.

Rules and table: "What capture sees" in ARCHITECTURE.md. An echo is a change that this system made itself; if
echoes were published, every applied change would circle forever.

`capture` does no I/O. It is a generator: it yields the one read that it may need, is sent what was found, and
ends in a message to publish, or in `Dropped` with the reason.
"""

from collections.abc import Callable, Generator, Mapping
from enum import StrEnum
from typing import NamedTuple

from replication.changes.envelope import Kind, message_attributes
from replication.changes.events import Event, parse_event
from replication.documents.metadata import MetadataCodec
from replication.documents.stored import Snapshot, dismantle, read_meta, read_tombstone
from replication.errors import EventError, Reason
from replication.fleet.model import Fleet, Mode, Replica, Rule
from replication.ports import Found, Message


class Why(StrEnum):
    """Why an event is not published."""

    UNCHANGED = "unchanged"
    """Nothing happened; only emulators report such events."""
    OWN = "own"
    """It is of one of this system's own collections."""
    LOCAL = "local"
    """Its collection never leaves its replica."""
    EXPIRED = "expired"
    """Firestore's TTL deleted it, and each replica expires its own documents."""
    ECHO = "echo"
    """This system made the change."""


class Dropped(NamedTuple):
    """An event that is not published. `replica` is where it happened; empty where it is `UNCHANGED`."""

    why: Why
    replica: str = ""


class ReadTombstone(NamedTuple):
    """Yielded: read the document at `path` of a replica, strongly consistent. Answered with a `Found`.

    Only a delete needs it: nothing in the event says who deleted the document.
    """

    replica: str
    path: str


CaptureSteps = Generator[ReadTombstone, Found, Message | Dropped]


class _Case(NamedTuple):
    """An event of an application's document, and what it is decided by."""

    event: Event
    replica: Replica
    rule: Rule
    codec: MetadataCodec


def capture(body: bytes, headers: Mapping[str, str], fleet: Fleet) -> CaptureSteps:
    """Decide what to publish for one of Eventarc's events. `headers` are as `parse_event` takes them.

    Raises `EventError` when it is not an event of this fleet.
    """
    event = parse_event(body, headers)
    if event.unchanged:
        return Dropped(Why.UNCHANGED)
    replica, codec = fleet.replica_of(event.project, event.database), fleet.codec
    if replica is None:
        raise _of_no_replica(event)
    if codec.owns(event.path):
        return _own_document(event, replica, codec)
    rule = fleet.rule_for(event.path)
    if rule.mode is Mode.LOCAL:
        return Dropped(Why.LOCAL, replica.id)
    case = _Case(event, replica, rule, codec)
    if not event.deleted:
        return _application_write(case)
    # Firestore's TTL runs at a different time in each region.
    if event.by_system and fleet.expirations == "local":
        return Dropped(Why.EXPIRED, replica.id)
    found = yield ReadTombstone(replica.id, codec.tombstone_path(event.path))
    return _application_delete(case, found)


def run_capture(steps: CaptureSteps, read: Callable[[ReadTombstone], Found]) -> Message | Dropped:
    """Run a capture to its end, its reads answered by `read`, whose errors end it."""
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(read(wanted))
    except StopIteration as end:
        result: Message | Dropped = end.value
        return result


def _of_no_replica(event: Event) -> EventError:
    return EventError(
        Reason.UNKNOWN_REPLICA,
        f"projects/{event.project}/databases/{event.database} is not a replica in the config: add it under "
        "replicas, or delete its trigger",
    )


def _own_document(event: Event, replica: Replica, codec: MetadataCodec) -> Message | Dropped:
    """Of this system's own documents, only the tombstone of a merged delete concerns others."""
    if not event.deleted and event.path.startswith(f"{codec.tombstones}/"):
        document = event.take_value()
        path = document.fields["path"].string_value
        tombstone = read_tombstone(document, path=path, codec=codec)
        if tombstone.merged and codec.tombstone_path(path) == event.path:
            return _message(event, replica, Kind.MERGED)
    return Dropped(Why.OWN, replica.id)


def _application_delete(case: _Case, found: Found) -> Message | Dropped:
    event, replica, rule, codec = case
    tombstone = read_tombstone(found.document, path=event.path, codec=codec)
    if event.replaced in tombstone.bases:
        return Dropped(Why.ECHO, replica.id)
    if _violates(rule, replica):
        return _message(event, replica, Kind.VIOLATION, to=replica.id)
    # The replica itself needs the tombstone too: without it, a late event would bring the document back there.
    return _message(event, replica, Kind.DELETE, heal=True)


def _application_write(case: _Case) -> Message | Dropped:
    event, replica, rule, codec = case
    snapshot = dismantle(event.take_value(), path=event.path, prefix=replica.prefix, codec=codec)
    if is_echo(snapshot, event.replaced):
        merged = snapshot.meta is not None and snapshot.meta.merged
        return _message(event, replica, Kind.MERGED) if merged else Dropped(Why.ECHO, replica.id)
    if _violates(rule, replica):
        return _message(event, replica, Kind.VIOLATION, to=replica.id)
    return _message(event, replica, Kind.WRITE, heal=_lost_its_clock(snapshot, case))


def is_echo(snapshot: Snapshot, replaced: int) -> bool:
    """Whether this system wrote a document, which replaced one last updated at `replaced` (0: none)."""
    return snapshot.by_fleet and snapshot.meta is not None and snapshot.meta.base == replaced


def _lost_its_clock(snapshot: Snapshot, case: _Case) -> bool:
    """Whether the replica's own copy knows less than this event: after a whole `set()`, or a restore."""
    if snapshot.intact:
        return True
    old = case.event.old
    if snapshot.meta is not None or old is None:
        return False
    return read_meta(old, case.event.path, case.codec)[0] is not None


def _violates(rule: Rule, replica: Replica) -> bool:
    return rule.mode is Mode.SINGLE_PRIMARY and rule.primary != replica.id


def _message(
    event: Event, replica: Replica, kind: Kind, *, heal: bool = False, to: str | None = None
) -> Message:
    return Message(
        event.body, message_attributes(event.attributes, replica=replica.id, kind=kind, heal=heal, to=to)
    )

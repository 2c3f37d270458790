"""Capture's one decision: what is an event to the fleet, and who receives it.

Rules and table: "What capture sees" in ARCHITECTURE.md's protocol. An echo
is a change that this system made itself; without dropping it, every applied change would go round for ever.
"""

from replication.changes.events import Event, Kind
from replication.configuration.parse import Fleet, Mode, Replica, Rule
from replication.documents.metadata import MetadataCodec
from replication.documents.stored import Snapshot, read_meta, take_snapshot, take_tombstone
from replication.documents.wire import micros
from replication.errors import EventError, Reason
from replication.ports import Found, Message

ATTRIBUTE_BYTES_MAX = 1024
"""Pub/Sub's limit on one attribute's value."""


def replica_of(event: Event, fleet: Fleet) -> Replica:
    """The replica an event happened at. Raises `EventError` when it is none of the fleet's."""
    replica = fleet.replica_of(event.project, event.database)
    if replica is None:
        raise EventError(
            Reason.UNKNOWN_REPLICA,
            f"projects/{event.project}/databases/{event.database} is no replica in the config: add it under "
            "replicas, or delete its trigger",
        )
    return replica


def needs_tombstone(event: Event, fleet: Fleet) -> str | None:
    """The tombstone to read at the event's replica before it can be classified; None: nothing to read.

    Only a delete needs it: nothing in the event says who deleted the document.
    """
    if event.unchanged or not event.deleted or fleet.codec.owns(event.path) or _expired(event, fleet):
        return None
    if fleet.rule_for(event.path).mode is Mode.LOCAL:
        return None
    return fleet.codec.tombstone_path(event.path)


def classify(event: Event, fleet: Fleet, tombstone: Found | None = None) -> Message | None:
    """What to publish for an event; None for an echo, and for what never leaves its replica.

    `tombstone` is what was read at `needs_tombstone`. Consumes `event.data`.
    """
    if event.unchanged:
        return None
    codec = fleet.codec
    replica = replica_of(event, fleet)
    if codec.owns(event.path):
        merged = _is_merged_tombstone(event, codec)
        return _message(event, replica, Kind.MERGED) if merged else None
    rule = fleet.rule_for(event.path)
    if rule.mode is Mode.LOCAL or (event.deleted and _expired(event, fleet)):
        return None
    if event.deleted:
        return _classify_delete(event, replica, rule, codec, tombstone)
    return _classify_write(event, replica, rule, codec)


def _expired(event: Event, fleet: Fleet) -> bool:
    # Firestore's TTL runs in each region at another time: each replica expires its own documents.
    return event.by_system and fleet.expirations == "local"


def _is_merged_tombstone(event: Event, codec: MetadataCodec) -> bool:
    if event.deleted or not event.path.startswith(f"{codec.tombstones}/"):
        return False
    path = event.data.value.fields["path"].string_value
    tombstone = take_tombstone(event.data.value, path=path, codec=codec)
    return tombstone.merged and codec.tombstone_path(path) == event.path


def _classify_delete(
    event: Event, replica: Replica, rule: Rule, codec: MetadataCodec, tombstone: Found | None
) -> Message | None:
    known = take_tombstone(tombstone.document if tombstone else None, path=event.path, codec=codec)
    if micros(event.data.old_value.update_time) in known.bases:
        return None
    if _violates(rule, replica):
        return _message(event, replica, Kind.VIOLATION, to=replica.id)
    # The replica itself needs the tombstone too, else a late event brings the document back there.
    return _message(event, replica, Kind.DELETE, heal=True)


def _classify_write(event: Event, replica: Replica, rule: Rule, codec: MetadataCodec) -> Message | None:
    old = event.data.old_value if event.data.HasField("old_value") else None
    snapshot = take_snapshot(event.data.value, path=event.path, prefix=replica.prefix, codec=codec)
    if is_echo(snapshot, micros(old.update_time) if old is not None else 0):
        merged = snapshot.meta is not None and snapshot.meta.merged
        return _message(event, replica, Kind.MERGED) if merged else None
    if _violates(rule, replica):
        return _message(event, replica, Kind.VIOLATION, to=replica.id)
    return _message(event, replica, Kind.WRITE, heal=_lost_its_clock(snapshot, old, event, codec))


def is_echo(snapshot: Snapshot, replaced: int) -> bool:
    """Whether this system wrote a document, which replaced one last updated at `replaced` (0: none)."""
    return snapshot.by_fleet and snapshot.meta is not None and snapshot.meta.base == replaced


def _lost_its_clock(snapshot: Snapshot, old: object, event: Event, codec: MetadataCodec) -> bool:
    """Whether the replica's own copy says less than this event: a whole `set()`, or a snapshot put back."""
    if snapshot.intact:
        return True
    if snapshot.meta is not None or old is None:
        return False
    return read_meta(old, event.path, codec)[0] is not None


def _violates(rule: Rule, replica: Replica) -> bool:
    return rule.mode is Mode.SINGLE_PRIMARY and rule.primary != replica.id


def _message(
    event: Event, replica: Replica, kind: Kind, *, heal: bool = False, to: str | None = None
) -> Message:
    attributes = {
        name: value for name, value in event.attributes.items() if len(value.encode()) <= ATTRIBUTE_BYTES_MAX
    }
    attributes |= {"replica": replica.id, "kind": kind}
    if heal:
        attributes["heal"] = "1"
    if to is not None:
        attributes["to"] = to
    return Message(event.body, attributes)

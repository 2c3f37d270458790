"""What every contender is given: changes of `eu`, and the documents that `us`, the target, holds before them.

Half of the changes are new documents. Half are second versions: written first at `apac`, replicated everywhere,
then set anew at `eu`, so that each brings a version to be read, compared and written. A share of these can be
made conflicts: the target's own application has written the document meanwhile.
"""

from dataclasses import dataclass, field
from typing import Any

from conflict.version import Version
from replication.documents.metadata import Meta
from replication.documents.stored import dismantle
from replication.documents.wire import MICROS, Document, DocumentEventData, Write, set_micros, time_text
from replication.fleet.model import Fleet, Replica
from replication.ports import Message

SOURCE, TARGET, THIRD = "eu", "us", "apac"
COLLECTION = "orders"
_FIELDS = 10
_LATER_US = 60 * MICROS
"""A conflicting write that is to win is stamped ahead of the target's; well within the drift limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A kind of load: number of changes, bytes of each document, shares of second versions and of conflicts."""

    changes: int = 20_000
    bytes: int = 1_000
    second_versions: float = 0.5
    conflicts: float = 0.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Changes on their way to the target, and what the target holds; `paths` are the changed documents."""

    spec: Spec
    paths: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    seeds: list[Any] = field(default_factory=list)
    """Writes of documents as the target's worker would have left them; sent before the changes."""


def build(fleet: Fleet, spec: Spec, *, now: int) -> Workload:
    """Build a load at `now` (µs); the same arguments give the same bytes."""
    made = Workload(spec)
    period = max(1, round(1 / spec.second_versions)) if spec.second_versions else 0
    conflict_period = round(1 / spec.conflicts) if spec.conflicts else 0
    for number in range(spec.changes):
        path = f"{COLLECTION}/{number:08}"
        made.paths.append(path)
        conflicting = bool(conflict_period) and number % conflict_period == 0
        second = conflicting or (bool(period) and number % period == 0)
        first_at = now - 1_000 * MICROS + number
        wins = number // max(1, conflict_period) % 2 == 0
        at = now + _LATER_US if conflicting and wins else first_at + MICROS
        old = _replicated(fleet, SOURCE, path, spec.bytes, at=first_at, read=now) if second else None
        if second:
            made.seeds.append(_seed(fleet, path, spec.bytes, at=first_at, read=now, ours=not conflicting))
        value = plain(fleet.replica(SOURCE), path, spec.bytes, at=at, mark="new")
        made.messages.append(change(value, old, number=number, at=at))
    return made


def plain(replica: Replica, path: str, size: int, *, at: int, mark: str) -> Any:
    """A document as an application left it at a replica: ten texts of `size` bytes in all."""
    made = Document(name=replica.prefix + path)
    filler = (mark * size)[: max(1, size // _FIELDS)]
    for number in range(_FIELDS):
        made.fields[f"field{number}"].string_value = filler
    set_micros(made.create_time, at)
    set_micros(made.update_time, at)
    return made


def change(value: Any, old: Any, *, number: int, at: int) -> Message:
    """The message that capture publishes for a write at the source."""
    data = DocumentEventData(value=value, old_value=old)
    attributes = {
        "ce-id": str(number),
        "ce-type": "google.cloud.firestore.document.v1.written",
        "ce-time": time_text(at),
        "ce-datacontenttype": "application/protobuf",
        "replica": SOURCE,
        "kind": "write",
    }
    return Message(data.SerializeToString(), attributes)


def _replicated(fleet: Fleet, replica: str, path: str, size: int, *, at: int, read: int) -> Any:
    """The third replica's document, as a worker wrote it at another one."""
    prefix = fleet.replica(replica).prefix
    made = plain(fleet.replica(replica), path, size, at=at, mark="old")
    taken = dismantle(
        Document.FromString(made.SerializeToString()), path=path, prefix=prefix, codec=fleet.codec
    )
    version = Version({THIRD: at}, at, THIRD, at, taken.digest)
    fleet.codec.encode(path, Meta(version, read=read), made.fields[fleet.metadata_field])
    set_micros(made.update_time, read)
    return made


def _seed(fleet: Fleet, path: str, size: int, *, at: int, read: int, ours: bool) -> Any:
    if ours:
        held = _replicated(fleet, TARGET, path, size, at=at, read=read)
    else:
        held = plain(fleet.replica(TARGET), path, size, at=at, mark="local")
    held.ClearField("create_time")
    held.ClearField("update_time")
    return Write(update=held)

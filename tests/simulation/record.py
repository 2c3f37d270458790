"""What the world writes down about messages and documents, read from bytes and not through the core's rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from replication.documents.stored import dismantle, read_tombstone, version_at
from replication.documents.wire import Document, DocumentEventData, micros
from replication.fleet.model import Fleet
from replication.ports import Message
from tests.simulation.history import Final, Logged, Side

if TYPE_CHECKING:
    from tests.simulation.world import World

Key = tuple[str, str]
"""A replica and a path."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A message: of which document, which dots it brings, when it was committed where it came from."""

    path: str
    kind: str
    source: str
    needs: Mapping[str, int]
    dot: int
    commit_time: int

    def __str__(self) -> str:
        return f"{self.path} {self.needs}"


@dataclass(frozen=True, slots=True)
class LateWrite:
    """A worker's write whose answer never came; it lands until `until` (µs of the world), or never."""

    replica: str
    writes: Sequence[Any]
    atomic: bool
    until: int


@dataclass(slots=True)
class Facts:
    """What the oracles' facts are made from, while the history runs."""

    messages: dict[str, Fact | None] = field(default_factory=dict)
    by_dot: dict[tuple[str, str, int], int] = field(default_factory=dict)
    last_local: dict[Key, int] = field(default_factory=dict)
    standing: dict[Key, dict[str, int]] = field(default_factory=dict)
    landed: dict[Key, list[int]] = field(default_factory=dict)
    records: dict[tuple[str, str, str, int], bool] = field(default_factory=dict)
    forwarded: dict[tuple[str, str, int], bool] = field(default_factory=dict)
    origins: list[frozenset[str]] = field(default_factory=list)
    """By write: the replicas of all it had seen, itself included."""

    def seen_at(self, parents: tuple[int, ...]) -> frozenset[str]:
        """The replicas of all that these writes, and what they had seen, were made at."""
        return frozenset().union(*(self.origins[number] for number in parents))

    def stand(self, key: Key, clock: Mapping[str, int]) -> None:
        """A state with this clock is durable at a replica."""
        standing = self.standing.setdefault(key, {})
        for replica, dot in clock.items():
            if standing.get(replica, 0) < dot:
                standing[replica] = dot

    def log(self, replica: str, path: str, document: Any, codec: Any) -> None:
        """A document of the conflict log is durable."""
        if f"/{codec.bodies}/" in path:
            return
        fields = document.fields
        for side in fields["versions"].array_value.values:
            inner = side.map_value.fields
            key = (
                replica,
                fields["path"].string_value,
                inner["origin"].string_value,
                inner["dot"].integer_value,
            )
            self.records[key] = True


def clock_of(document: Any, name: str) -> dict[str, int]:
    """The clock in a document's `_repl`, believed or not; empty where there is none."""
    if name not in document.fields:
        return {}
    meta = document.fields[name].map_value.fields
    if "clock" not in meta:
        return {}
    clock = meta["clock"].map_value.fields
    return {replica: clock[replica].integer_value for replica in sorted(clock)}


def fact_of(message: Message, fleet: Fleet) -> Fact | None:
    """What a message is; None for one that is none of this system's."""
    attributes = message.attributes
    kind, source = attributes.get("kind", ""), attributes.get("replica", "")
    try:
        data = DocumentEventData.FromString(message.data)
    except DecodeError:
        return None
    if source not in fleet.replicas or not (data.HasField("value") or data.HasField("old_value")):
        return None
    document = data.value if data.HasField("value") else data.old_value
    path = document.name[len(fleet.replicas[source].prefix) :]
    update_time = micros(document.update_time)
    if kind == "merged":
        needs = clock_of(document, fleet.codec.field)
        if fleet.codec.owns(path):
            path = document.fields["path"].string_value
        return Fact(path, kind, source, needs, 0, update_time)
    if data.HasField("value"):
        return Fact(path, kind, source, {source: update_time}, update_time, update_time)
    return Fact(path, kind, source, {source: update_time + 1}, update_time + 1, _event_time(attributes))


def is_for(attributes: Mapping[str, str], replica: str) -> bool:
    """What a subscription's filter lets through, as Pub/Sub itself would decide it."""
    if "to" in attributes:
        return attributes["to"] == replica
    return attributes.get("replica") != replica or attributes.get("heal") == "1"


def _event_time(attributes: Mapping[str, str]) -> int:
    # Not by the core's parser, whose answer is judged.
    text = attributes.get("ce-time", "")
    if not text:
        return 0
    moment = datetime.fromisoformat(text)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def body_of(document: Any, *, field: str) -> bytes:
    """A document's own fields as bytes that are equal at every replica where the content is."""
    bare = Document()
    bare.CopyFrom(document)
    bare.ClearField("name")
    bare.ClearField("create_time")
    bare.ClearField("update_time")
    if field in bare.fields:
        del bare.fields[field]
    if "ref" in bare.fields:
        # Into whichever replica it points: the same document is meant.
        reference = bare.fields["ref"]
        reference.reference_value = reference.reference_value.partition("/documents/")[2]
    return bytes(bare.SerializeToString(deterministic=True))


def finals_of(world: "World") -> dict[tuple[str, str], Final]:
    """Every document at every replica as it stands."""
    codec = world.fleet.codec
    finals = {}
    for name, database in world.databases.items():
        for path in world.knobs.paths:
            document = database.get(path)
            if document is not None:
                body = body_of(document, field=codec.field)
                update_time = micros(document.update_time)
                snapshot = dismantle(document, path=path, prefix=database.prefix, codec=codec)
                finals[name, path] = Final(body, update_time, version_at(snapshot, name))
                continue
            buried = database.get(codec.tombstone_path(path))
            tombstone = read_tombstone(buried, path=path, codec=codec)
            finals[name, path] = Final(None, tombstone.update_time, tombstone.version)
    return finals


def logged_of(world: "World") -> list[Logged]:
    """All conflict logs, as an operator would read them."""
    codec = world.fleet.codec
    logged = []
    for name, database in world.databases.items():
        for path in database.paths():
            if not path.startswith(codec.conflicts) or f"/{codec.bodies}/" in path:
                continue
            document = database.get(path)
            assert document is not None
            fields = document.fields
            sides = tuple(
                _side(value.map_value.fields, path, database, codec)
                for value in fields["versions"].array_value.values
            )
            text = {key: fields[key].string_value for key in ("path", "kind", "winner")}
            logged.append(Logged(name, text["path"], text["kind"], text["winner"], sides))
    return logged


def _side(fields: Any, record: str, database: Any, codec: Any) -> Side:
    clock = fields["clock"].map_value.fields
    kept = database.get(f"{record}/{codec.bodies}/{fields['id'].string_value}")
    body = None
    if kept is not None:
        document = Document(fields=kept.fields["body"].map_value.fields)
        body = body_of(document, field=codec.field)
    return Side(
        id=fields["id"].string_value,
        origin=fields["origin"].string_value,
        dot=fields["dot"].integer_value,
        deleted=fields["deleted"].boolean_value,
        clock={replica: clock[replica].integer_value for replica in sorted(clock)},
        body=body,
    )

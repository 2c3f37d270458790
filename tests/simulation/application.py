"""Applications: they write to their replica with the ordinary client library and know nothing of this system.

So they also do what breaks naive replication: write back a whole document as they once read it, `_repl`
included; copy documents; put anything at all into `_repl`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conflict.version import Version
from replication.documents.metadata import FLEET_WRITE_US_MAX, Meta, MetadataFault, digest_of
from replication.documents.wire import Document, Value, micros
from replication.errors import ConditionFailed
from tests.simulation.history import AppWrite
from tests.simulation.knobs import STATES
from tests.simulation.record import body_of, clock_of
from tests.simulation.trace import describe

if TYPE_CHECKING:
    from tests.simulation.world import World

REMEMBERED_MAX = 8
Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Memory:
    """A document as an application once read it. `state` is the number of the write it was, if one is known."""

    path: str
    fields: Fields
    state: int | None


class Application:
    """The applications at one replica."""

    def __init__(self, world: "World", replica: str) -> None:
        self._world = world
        self._replica = replica
        self._database = world.databases[replica]
        self._memories: list[_Memory] = []
        knobs = world.knobs
        self._weights = [
            ("set", knobs.sets),
            ("update", knobs.updates),
            ("delete", knobs.deletes),
            ("read", knobs.reads if knobs.write_backs or knobs.copies else 0),
            ("write_back", knobs.write_backs),
            ("copy", knobs.copies),
            ("forge", knobs.forgeries + knobs.sealed_forgeries),
        ]

    def move(self) -> bool:
        """One operation on one document."""
        world = self._world
        if world.unreachable(self._replica):
            return False
        path = world.dice.pick(world.knobs.paths)
        getattr(self, f"_{world.dice.weighted(self._weights)}")(path)
        return True

    # ── operations ────────────────────────────────────────────────────────────────────────────────────────

    def _set(self, path: str) -> None:
        self._put(path, self._fresh(), "set")

    def _update(self, path: str) -> None:
        before = self._database.get(path)
        if before is None:
            return self._set(path)
        fields = self._fresh()
        changes = {name: value for name, value in fields.items() if name == "v" or self._world.dice.chance(500)}
        try:
            time = self._database.update(path, changes)
        except ConditionFailed:  # pragma: no cover - one thread: it is still there
            return None
        return self._wrote(path, before, time, "update")

    def _delete(self, path: str) -> None:
        before = self._database.get(path)
        if before is not None:
            self._wrote(path, before, self._database.delete(path), "delete")

    def _read(self, path: str) -> None:
        world, replica = self._world, self._replica
        if world.knobs.cross_reads and world.dice.chance(300):
            replica = world.dice.pick(world.knobs.ids)
        document = world.databases[replica].get(path)
        if document is None:
            return
        self._memories.append(_Memory(path, _copied(document.fields), self._state(path, document, replica)))
        del self._memories[:-REMEMBERED_MAX]

    def _write_back(self, path: str) -> None:
        """Write a whole document back as it was once read: as it is, or with a field changed."""
        dice = self._world.dice
        if not self._memories:
            return self._read(path)
        memory = dice.pick(self._memories)
        fields = dict(memory.fields)
        changed = dice.chance(500)
        if changed:
            fields |= {"v": _integer(self._next), "n": _integer(dice.below(9))}
        before = self._database.get(memory.path)
        if before is None and self._looks_like_an_echo(memory, changed=changed):
            return None
        self._world.sometimes("undelete" if before is None else "write-back")
        believed = self._meta(memory.path, memory.fields, self._now) is not None
        context = memory.state if believed else None
        return self._put(memory.path, fields, "write-back", context=context)

    def _copy(self, path: str) -> None:
        """Copy a document, `_repl` and all, onto another path."""
        others = [memory for memory in self._memories if memory.path != path]
        if not others:
            return self._read(path)
        self._world.sometimes("copy")
        fields = dict(self._world.dice.pick(others).fields)
        if self._world.dice.chance(500):
            fields["v"] = _integer(self._next)
        return self._put(path, fields, "copy")

    def _forge(self, path: str) -> None:
        world, codec = self._world, self._world.fleet.codec
        fields = self._fresh()
        if world.knobs.sealed_forgeries and path.startswith("orders/") and world.dice.chance(300):
            fields[codec.field] = self._forged(
                path, fields, ahead_us=world.dice.below(self._ahead_us_max), sealed=True
            )
            world.sometimes("forged, sealed")
            return self._put(path, fields, "sealed forgery", tainted=True)
        match world.dice.below(4):
            case 0:
                fields[codec.field] = Value(string_value="mine")
            case 1:
                fields[codec.field] = Value()
                fields[codec.field].map_value.fields["clock"].map_value.SetInParent()
            case 2:
                fields[codec.field] = self._forged(path, fields, ahead_us=50_000_000, sealed=False)
            case _:
                # Sealed as if with the secret, but from years ahead: nothing this system could have written.
                fields[codec.field] = self._forged(path, fields, ahead_us=10**15, sealed=True)
                world.sometimes("forged, from the future")
        world.sometimes("forged")
        return self._put(path, fields, "forgery")

    # ── how ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _next(self) -> int:
        return len(self._world.history.writes)

    def _fresh(self) -> Fields:
        world, dice = self._world, self._world.dice
        fields = {
            "v": _integer(self._next),
            "n": _integer(dice.below(5)),
            "status": Value(string_value=dice.pick(STATES)),
        }
        if dice.chance(300):
            tags = Value()
            for _ in range(1 + dice.below(2)):
                tags.array_value.values.add().string_value = f"t{dice.below(4)}"
            fields["tags"] = tags
        if dice.chance(100):
            fields["ref"] = Value(reference_value=f"{self._database.prefix}orders/1")
        if world.rate(world.knobs.cursed):
            fields["cursed"] = Value(boolean_value=True)
        return fields

    def _put(
        self, path: str, fields: Fields, kind: str, *, context: int | None = None, tainted: bool = False
    ) -> None:
        before = self._database.get(path)
        time = self._database.set(path, fields)
        self._wrote(path, before, time, kind, context=context, tainted=tainted)

    def _wrote(
        self,
        path: str,
        before: Any,
        time: int,
        kind: str,
        *,
        context: int | None = None,
        tainted: bool = False,
    ) -> None:
        world, database, field = self._world, self._database, self._world.fleet.codec.field
        replaced = micros(before.update_time) if before is not None else 0
        if time == replaced:
            return  # nothing changed: Firestore keeps the update time and reports no event
        after = database.get(path)
        body = body_of(after, field=field) if after is not None else None
        seen = [world.facts.last_local.get((self._replica, path)), context]
        if context is None and before is not None:
            seen[1] = self._state(path, before, self._replica)
        if before is None:
            seen += self._buried(path)
        parents = tuple(sorted({number for number in seen if number is not None}))
        seen_at = world.facts.seen_at(parents)
        stands = after if after is not None else before
        carried = stands is not None and self._carries(path, stands)
        write = AppWrite(
            number=len(world.history.writes),
            replica=self._replica,
            path=path,
            dot=time if body is not None else replaced + 1,
            time=time,
            body=body,
            parents=parents,
            kind=kind,
            tainted=tainted,
            cursed=after is not None and "cursed" in after.fields,
            # Nor does a document that is created again say which delete it comes after.
            severed=(not carried or before is None) and bool(seen_at - {self._replica}),
        )
        if kind in {"write-back", "sealed forgery"} and after is not None:
            world.facts.stand((self._replica, path), clock_of(after, field))
            # For 10 s a worker cannot tell an exact copy from what it wrote itself, nor its time.
            world.facts.landed.setdefault((self._replica, path), []).append(time)
        if world.trace is not None:
            what = describe(after, field) if after is not None else ""
            world.say(f"application {self._replica}: write {write.number} {kind} {path}", what)
        world.wrote(write)

    def _state(self, path: str, document: Any, replica: str) -> int | None:
        """The number of the write that a document is: this replica's own, or the one its `_repl` names.

        Another replica's own write leaves no mark in the document until that replica has replicated it: who
        writes it back here cannot be known to have seen it.
        """
        world = self._world
        by_dot = world.facts.by_dot
        here = replica == self._replica
        own = by_dot.get((replica, path, micros(document.update_time))) if here else None
        field = world.fleet.codec.field
        if own is not None or field not in document.fields:
            return own
        meta = document.fields[field].map_value.fields
        if "origin" not in meta:
            return None
        return by_dot.get((meta["origin"].string_value, path, meta["dot"].integer_value))

    def _buried(self, path: str) -> list[int]:
        """The deletes that had reached this replica: who creates the document again has seen it absent."""
        world = self._world
        standing = world.facts.standing.get((self._replica, path), {})
        return [
            write.number
            for write in world.history.writes
            if write.path == path and write.body is None and standing.get(write.replica, 0) >= write.dot
        ]

    def _carries(self, path: str, document: Any) -> bool:
        return self._meta(path, document.fields, micros(document.update_time)) is not None

    def _meta(self, path: str, fields: Any, update_time: int) -> Meta | None:
        codec = self._world.fleet.codec
        if codec.field not in fields:
            return None
        try:
            return codec.decode(path, fields[codec.field], update_time=update_time)
        except MetadataFault:
            return None

    @property
    def _now(self) -> int:
        [found] = self._database.read(["orders/1"], timeout=0)
        return found.read_time

    def _looks_like_an_echo(self, memory: _Memory, *, changed: bool) -> bool:
        """The protocol's known limit: a document restored with its `_repl` within 10 s of its first arrival."""
        meta = self._meta(memory.path, memory.fields, self._now)
        if meta is None or changed:
            return False
        return meta.base == 0 and self._now <= meta.read + FLEET_WRITE_US_MAX

    @property
    def _ahead_us_max(self) -> int:
        """No replica may see a time further ahead than the drift limit: beyond it nothing is promised."""
        apart_us = 2 * self._world.knobs.skew_us
        return min(100_000_000, self._world.fleet.codec.drift_limit_us - apart_us - FLEET_WRITE_US_MAX)

    def _forged(self, path: str, fields: Fields, *, ahead_us: int, sealed: bool) -> Any:
        world, codec = self._world, self._world.fleet.codec
        ahead = self._now + ahead_us
        origin = world.dice.pick(world.knobs.ids)
        body = digest_of(Document(fields=fields).SerializeToString(deterministic=True))
        version = Version({origin: ahead}, ahead, origin, ahead, body)
        # A base that no document had: with a right one, and the secret, nobody could tell it from an echo.
        value = Value()
        codec.encode(path, Meta(version, base=1, read=ahead), value)
        if not sealed:
            value.map_value.fields["seal"].bytes_value = b"\x01" + bytes(16)
        return value


def _integer(number: int) -> Any:
    return Value(integer_value=number)


def _copied(fields: Any) -> Fields:
    copies = {}
    for name in sorted(fields):
        copies[name] = Value()
        copies[name].CopyFrom(fields[name])
    return copies

"""Firestore and Pub/Sub in memory: for the demo without emulators, and for simulations.

A database behaves as Firestore's does towards `replication.ports.Database`; the contract suite holds it and
the emulator to the same answers. It reads no clock and starts no thread: `now` is given, every outcome follows
from the calls, and a lock lets threads share it. Triggers call back when a commit is done.

Not here: queries, transactions, field transforms (`Refused`), indexes, security rules.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from replication.adapters.memory_documents import (
    STORED_PER_SERIALISED,
    Path,
    check_path,
    field_path,
    normalise,
    overlay,
    place,
    stored_size,
)
from replication.adapters.memory_pubsub import MemoryPublisher, MemorySubscription, MemoryTopic
from replication.changes.envelope import eventarc_headers
from replication.documents.wire import (
    MICROS,
    Document,
    DocumentEventData,
    Write,
    database_prefix,
    micros,
    set_micros,
)
from replication.errors import ConditionFailed, Refused
from replication.limits import COMMIT_BYTES_MAX, DOCUMENT_BYTES_MAX, VALUE_BYTES_MAX
from replication.ports import Database, Found, Written

__all__ = [
    "Change",
    "Listener",
    "MemoryDatabase",
    "MemoryPublisher",
    "MemorySubscription",
    "MemoryTopic",
]


# gRPC's status codes: https://grpc.io/docs/guides/status-codes/
OK, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION = 0, 3, 5, 6, 9


class Change(NamedTuple):
    """One changed document as Eventarc delivers it: a `DocumentEventData`, and the request's headers."""

    body: bytes
    headers: dict[str, str]


Listener = Callable[[Change], None]
"""Called after a commit, outside the database's lock, on the thread that wrote; it must not raise."""


class _Stored(NamedTuple):
    """A document at rest: its name and fields as bytes, so that no one outside holds a part of it."""

    body: bytes
    create_time: int
    update_time: int

    def document(self) -> Any:
        document = Document()
        self.write_to(document)
        return document

    def write_to(self, document: Any) -> None:
        """Fill an empty `Document`."""
        document.MergeFromString(self.body)
        set_micros(document.create_time, self.create_time)
        set_micros(document.update_time, self.update_time)


class _Operation(NamedTuple):
    """A write that passed every check that does not depend on the database's state.

    `new` and its bytes are None for a delete; `mask` is None for a write of the whole document.
    `condition` is the precondition's field and value, both None if it has none.
    """

    path: str
    new: Any
    body: bytes
    mask: tuple[Path, ...] | None
    condition: tuple[str | None, Any]


class _Failed(NamedTuple):
    code: int
    text: str


_State = dict[str, _Stored | None]


class MemoryDatabase(Database):
    """One database in memory. `now` gives microseconds since 1970 and may stand still or go back.

    Commit times strictly increase all the same. `whole_second_times` cuts events' times to the second and
    `unchanged_fires` sends an event for a write that changes nothing, both as the emulator does; production
    sends none.
    """

    def __init__(
        self,
        project: str,
        database: str,
        *,
        now: Callable[[], int],
        location: str = "memory",
        whole_second_times: bool = False,
        unchanged_fires: bool = False,
    ) -> None:
        self.prefix = database_prefix(project, database)
        self._headers = partial(eventarc_headers, project=project, database=database, location=location)
        self._event_id_prefix = f"{project}-{database}-"
        self._now = now
        self._whole_second_times = whole_second_times
        self._unchanged_fires = unchanged_fires
        self._documents: dict[str, _Stored] = {}
        self._last = 0
        self._events = 0
        self._listeners: tuple[Listener, ...] = ()
        self._lock = threading.RLock()

    def read(self, paths: Sequence[str], *, timeout: float) -> list[Found]:
        """See `Database.read`."""
        for path in paths:
            check_path(path)
        with self._lock:
            # A later commit must not carry a time that this read already speaks for.
            self._last = read_time = max(self._now(), self._last)
            stored = [self._documents.get(path) for path in paths]
        return [
            Found(path, None, 0, read_time)
            if one is None
            else Found(path, one.document(), one.update_time, read_time)
            for path, one in zip(paths, stored, strict=True)
        ]

    def batch_write(self, writes: Sequence[Any], *, timeout: float) -> list[Written]:
        """See `Database.batch_write`. A delete's outcome has no commit time, a write without change the old."""
        operations = self._checked(writes)
        if len({operation.path for operation in operations}) < len(operations):
            raise Refused(f"{self.prefix}: a document is written more than once in one batch_write")
        outcomes = []
        changes: list[Change] = []
        with self._lock:
            for operation in operations:
                state: _State = {}
                commit_time = self._tick()
                failed = self._stage(operation, state, commit_time)
                if failed:
                    outcomes.append(Written(failed.code, 0, failed.text))
                else:
                    changes += self._land(state, commit_time)
                    after = state[operation.path]
                    outcomes.append(Written(OK, after.update_time if after else 0))
        self._tell(changes)
        return outcomes

    def commit(self, writes: Sequence[Any], *, timeout: float) -> int:
        """See `Database.commit`. A document may occur more than once: the writes apply in order."""
        operations = self._checked(writes)
        state: _State = {}
        with self._lock:
            commit_time = self._tick()
            for operation in operations:
                failed = self._stage(operation, state, commit_time)
                if failed:
                    error = Refused if failed.code == INVALID_ARGUMENT else ConditionFailed
                    raise error(f"{self.prefix}{operation.path}: {failed.text}")
            changes = self._land(state, commit_time)
        self._tell(changes)
        return commit_time

    def close(self) -> None:
        """Do nothing: the documents outlive a worker that closes its database, as they should."""

    def on_change(self, listener: Listener) -> None:
        """Call `listener` once for each document that a commit changed, in no promised order."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def set(self, path: str, fields: Mapping[str, Any]) -> int:
        """Write a whole document, like the official client's `set`; returns its `update_time`.

        `fields` are protobuf values by name.
        """
        write = self._update(path)
        for name, value in fields.items():
            write.update.fields[name].CopyFrom(value)
        return self._write(write)

    def update(self, path: str, changes: Mapping[str, Any]) -> int:
        """Change fields of a document that exists, like the official client's `update`.

        `changes` are protobuf values by field path, None to remove the field. Returns the `update_time`;
        raises `ConditionFailed` if the document does not exist.
        """
        write = self._update(path)
        write.current_document.exists = True
        write.update_mask.field_paths.extend(changes)
        for text, value in changes.items():
            if value is not None:
                place(write.update.fields, field_path(text), value)
        return self._write(write)

    def delete(self, path: str) -> int:
        """Delete a document, there or not; returns the commit time."""
        return self.commit([Write(delete=self.prefix + path)], timeout=0)

    def get(self, path: str) -> Any | None:
        """One document, a copy; None if it does not exist."""
        with self._lock:
            stored = self._documents.get(path)
        return stored and stored.document()

    def paths(self) -> list[str]:
        """The relative paths of all documents, sorted."""
        with self._lock:
            return sorted(self._documents)

    def documents(self) -> Iterator[Any]:
        """Copies of all documents as of this call, by path."""
        with self._lock:
            stored = sorted(self._documents.items())
        return (one.document() for _, one in stored)

    def _update(self, path: str) -> Any:
        return Write(update=Document(name=self.prefix + path))

    def _write(self, write: Any) -> int:
        [outcome] = self.batch_write([write], timeout=0)
        if outcome.code:
            error = Refused if outcome.code == INVALID_ARGUMENT else ConditionFailed
            raise error(f"{write.update.name}: {outcome.text}")
        return outcome.commit_time

    def _tick(self) -> int:
        self._last = max(self._now(), self._last + 1)
        return self._last

    def _checked(self, writes: Sequence[Any]) -> list[_Operation]:
        operations = [self._operation(write) for write in writes]
        size = sum(len(operation.body) for operation in operations)
        if size > COMMIT_BYTES_MAX:
            raise Refused(f"{self.prefix}: a request of {size} bytes is over the limit of {COMMIT_BYTES_MAX}")
        return operations

    def _operation(self, write: Any) -> _Operation:
        kind = write.WhichOneof("operation")
        if kind not in {"update", "delete"} or write.update_transforms:
            raise Refused(f"{self.prefix}: a write must be a plain update or delete, not {kind or 'empty'}")
        masked = write.HasField("update_mask")
        condition = _condition(write.current_document)
        if kind == "delete":
            if masked:
                raise Refused(f"{write.delete}: a delete takes no mask")
            return _Operation(self._path(write.delete), None, b"", None, condition)
        path = self._path(write.update.name)
        new = Document()
        new.CopyFrom(write.update)
        new.ClearField("create_time")
        new.ClearField("update_time")
        normalise(new.fields)
        body = new.SerializeToString(deterministic=True)
        if len(body) > VALUE_BYTES_MAX:
            stored_size(path, new.fields)  # refuses the request if a single value is too long
        mask = tuple(map(field_path, write.update_mask.field_paths)) if masked else None
        return _Operation(path, new, body, mask, condition)

    def _path(self, name: str) -> str:
        if not name.startswith(self.prefix):
            raise Refused(f"{name!r} is not a document of this database, {self.prefix}")
        path = name[len(self.prefix) :]
        check_path(path)
        return path

    def _stage(self, operation: _Operation, state: _State, commit_time: int) -> _Failed | None:
        """Apply one operation to `state`, what this commit has changed so far; or say why it fails."""
        path = operation.path
        before = state[path] if path in state else self._documents.get(path)
        if failed := _broken(operation.condition, before):
            return failed
        if operation.new is None:
            state[path] = None
            return None
        body = self._body(operation, before)
        if before and body == before.body:
            state[path] = before  # Firestore keeps the update_time of what does not change
            return None
        if _too_large(path, body):
            return _Failed(INVALID_ARGUMENT, f"over the limit of {DOCUMENT_BYTES_MAX} bytes for a document")
        state[path] = _Stored(body, before.create_time if before else commit_time, commit_time)
        return None

    def _body(self, operation: _Operation, before: _Stored | None) -> bytes:
        if operation.mask is None:
            return operation.body
        document = Document.FromString(before.body) if before else Document(name=operation.new.name)
        overlay(document.fields, operation.new.fields, operation.mask)
        body: bytes = document.SerializeToString(deterministic=True)
        return body

    def _land(self, state: _State, commit_time: int) -> list[Change]:
        changes = []
        for path, after in state.items():
            before = self._documents.get(path)
            if after is not None:
                self._documents[path] = after
            elif before is not None:
                del self._documents[path]
            if self._listeners and (after is not before or self._unchanged_fires):
                changes.append(self._change(path, before, after, commit_time))
        return changes

    def _change(self, path: str, before: _Stored | None, after: _Stored | None, commit_time: int) -> Change:
        data = DocumentEventData()
        if after is not None:
            after.write_to(data.value)
        if before is not None:
            before.write_to(data.old_value)
        self._events += 1
        time = _timestamp(commit_time, whole_seconds=self._whole_second_times)
        headers = self._headers(path, event_id=f"{self._event_id_prefix}{self._events}", time=time)
        return Change(data.SerializeToString(deterministic=True), headers)

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            for listener in self._listeners:
                listener(change)


def _condition(precondition: Any) -> tuple[str | None, Any]:
    kind = precondition.WhichOneof("condition_type")
    if kind != "update_time":
        return kind, precondition.exists
    if precondition.update_time.nanos % 1000:
        raise Refused("an update_time precondition cannot be finer than a microsecond")
    return kind, micros(precondition.update_time)


def _broken(condition: tuple[str | None, Any], before: _Stored | None) -> _Failed | None:
    match condition:
        case ("exists", True) if before is None:
            return _Failed(NOT_FOUND, "there is no such document")
        case ("exists", False) if before is not None:
            return _Failed(ALREADY_EXISTS, "the document already exists")
        case ("update_time", expected) if before is not None and expected > before.update_time:
            # The emulator's answer to a time that never was. It cannot be read off this database.
            return _Failed(INVALID_ARGUMENT, f"the update_time is {before.update_time}, before {expected}")
        case ("update_time", expected) if expected != (found := before.update_time if before else 0):
            return _Failed(FAILED_PRECONDITION, f"the update_time is {found}, not {expected}")
        case _:
            return None


def _too_large(path: str, body: bytes) -> bool:
    # Measured only where it can matter: it costs as much as the rest of the write.
    if (len(body) + len(path)) * STORED_PER_SERIALISED < DOCUMENT_BYTES_MAX:
        return False
    return stored_size(path, Document.FromString(body).fields) > DOCUMENT_BYTES_MAX


def _timestamp(time: int, *, whole_seconds: bool) -> str:
    seconds, rest = divmod(time, MICROS)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest, tzinfo=None)
    return moment.isoformat(timespec="seconds" if whole_seconds else "microseconds") + "Z"

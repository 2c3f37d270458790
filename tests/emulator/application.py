"""An application that writes to all replicas at full speed with the official client, and logs what it wrote.

Each lane is a thread with a client of one replica. Lanes of the same number at different replicas write the
contested documents side by side, held together by a barrier, so that they write without having seen each
other. The log holds every acknowledged write with its commit time; `kept` says what last-write-wins must keep.
"""

import itertools
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from google.api_core.exceptions import NotFound
from google.cloud import firestore
from google.cloud.firestore_v1._helpers import encode_dict

from replication.documents.wire import Document, micros
from tests.support.polling import PATIENCE_S

Op = Literal["set", "update", "delete"]
HOT_DOCUMENTS = 12
_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Write:
    """One acknowledged write; `time` is its commit's, in microseconds."""

    replica: str
    path: str
    op: Op
    fields: Mapping[str, Any]
    time: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What last-write-wins must keep of a document: `fields`, all of them if `whole`; None: nothing."""

    fields: Mapping[str, bytes] | None
    whole: bool

    def matches(self, body: bytes | None) -> bool:
        """Whether this is what a replica holds."""
        if self.fields is None or body is None:
            return self.fields is None and body is None
        held = exact(Document.FromString(body).fields)
        if self.whole:
            return held == self.fields
        return all(held.get(name) == value for name, value in self.fields.items())


def exact(fields: Mapping[str, Any]) -> dict[str, bytes]:
    """Protobuf values in a form that is equal only for what is the same in type and content."""
    return {name: value.SerializeToString(deterministic=True) for name, value in fields.items()}


@dataclass(slots=True)
class Writer:
    """One replica's client, logging."""

    replica: str
    client: firestore.Client
    log: list[Write] = field(default_factory=list)

    def set(self, path: str, **fields: Any) -> None:
        """Write a document whole."""
        fields = self._told_apart(fields)
        result = self.client.document(path).set(fields, timeout=PATIENCE_S)
        self._note(path, "set", fields, result.update_time)

    def update(self, path: str, **fields: Any) -> None:
        """Change some fields; nothing where there is no document."""
        fields = self._told_apart(fields)
        try:
            result = self.client.document(path).update(fields, timeout=PATIENCE_S)
        except NotFound:
            return
        self._note(path, "update", fields, result.update_time)

    def delete(self, path: str) -> None:
        """Delete a document."""
        time = self.client.document(path).delete(timeout=PATIENCE_S)
        self._note(path, "delete", {}, time)

    def _told_apart(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """No two writes are the same, so that it can be told whose is kept."""
        return {**fields, "write": next(_ids), "at": self.replica}

    def _note(self, path: str, op: Op, fields: Mapping[str, Any], time: Any) -> None:
        self.log.append(Write(self.replica, path, op, fields, micros(time.timestamp_pb())))


def kept(log: Iterable[Write]) -> dict[str, Kept]:
    """What the log says every replica must hold in the end, for each document it can say that of.

    Commit times decide. The emulator tells a delete's time in whole seconds only, so of a document that was
    deleted this is known only where one replica alone wrote it: there, the order of its commits decides.
    """
    histories: dict[str, list[Write]] = {}
    for write in log:
        histories.setdefault(write.path, []).append(write)
    found = {}
    for path, history in histories.items():
        last = max(history, key=lambda write: (write.time, write.replica))
        if not any(write.op == "delete" for write in history) or len({one.replica for one in history}) == 1:
            found[path] = _kept(last)
    return found


def _kept(last: Write) -> Kept:
    if last.op == "delete":
        return Kept(None, whole=True)
    encoded = {name: type(value).pb(value) for name, value in encode_dict(dict(last.fields)).items()}
    return Kept(exact(encoded), whole=last.op == "set")


Step = Callable[[Writer], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much an application writes: documents of each lane, of which it has `lanes` at each replica."""

    lanes: int = 4
    contested: int = 54
    own: int = 59
    hot: int = 6


class Application:
    """Writes to all replicas at once; everything lies below the collections `{name}_…`."""

    def __init__(self, name: str, clients: Mapping[str, Callable[[], firestore.Client]], *, seed: int) -> None:
        self._name = name
        self._clients = clients
        self._seed = seed

    def run(self, size: Size) -> list[Write]:
        """Write it all; the log, in no order."""
        lanes = [(replica, lane) for lane in range(size.lanes) for replica in self._clients]
        barriers = [threading.Barrier(len(self._clients), timeout=PATIENCE_S) for _ in range(size.lanes)]

        def write(place: tuple[str, int]) -> list[Write]:
            replica, lane = place
            writer = Writer(replica, self._clients[replica]())
            for step in self._steps(replica, lane, size, barriers[lane]):
                step(writer)
            return writer.log

        with ThreadPoolExecutor(len(lanes)) as threads:
            return list(itertools.chain.from_iterable(threads.map(write, lanes)))

    def _steps(self, replica: str, lane: int, size: Size, barrier: threading.Barrier) -> Iterator[Step]:
        dice = random.Random(f"{self._seed}/{replica}/{lane}")
        own = list(self._own(replica, lane, size, dice))
        hot = list(self._hot(size, dice))
        for number in range(size.contested):
            yield lambda _: _meet(barrier)
            yield from self._contested(replica, lane, number)
            yield from own[number :: size.contested]
            yield from hot[number :: size.contested]

    def _contested(self, replica: str, lane: int, number: int) -> Iterator[Step]:
        """A document that several replicas write at the same moment; one of them may then change or delete it.

        One in six is written by all replicas, the others leave one replica out, each in its turn.
        """
        path = f"{self._name}_contested/{lane}-{number}"
        ids = list(self._clients)
        turn = ids.index(replica) + number
        if number % 6 and turn % len(ids) == 0:
            return
        yield _set(path, number=number, text="ä" * (number % 7))
        if turn % len(ids) == 1:
            if number % 4 == 1:
                yield _update(path, changed=True)
            if number % 5 == 1:
                yield _delete(path)

    def _own(self, replica: str, lane: int, size: Size, dice: random.Random) -> Iterator[Step]:
        """Documents that one replica alone writes: created, changed, half of them deleted."""
        for number in range(size.own):
            path = f"{self._name}_orders/{replica}-{lane}-{number}"
            if number % 3 == 2:
                path += f"/items/{number}"
            yield _set(path, total=dice.randrange(1000), lines=[{"product": "p", "price": dice.random()}])
            if number % 4 < 2:
                yield _update(path, total=dice.randrange(1000))
            if number % 2:
                yield _delete(path)

    def _hot(self, size: Size, dice: random.Random) -> Iterator[Step]:
        """Few documents that everybody writes again and again."""
        for _ in range(size.hot):
            path = f"{self._name}_hot/{dice.randrange(HOT_DOCUMENTS)}"
            yield dice.choice((_set, _update))(path, stock=dice.randrange(100))


def _meet(barrier: threading.Barrier) -> None:
    barrier.wait()


def _set(path: str, **fields: Any) -> Step:
    return lambda writer: writer.set(path, **fields)


def _update(path: str, **fields: Any) -> Step:
    return lambda writer: writer.update(path, **fields)


def _delete(path: str) -> Step:
    return lambda writer: writer.delete(path)


def of(log: Sequence[Write], op: Op) -> list[Write]:
    """The writes of one kind."""
    return [write for write in log if write.op == op]

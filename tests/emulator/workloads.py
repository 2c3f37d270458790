"""Six applications in small, each tempting in its own way; all write through the official client alone.

Every write is a transaction that first reads what it replaces, so that the log says what each writer had seen:
from that alone, without this system's metadata, `tests.emulator.judgement` tells which writes may be gone.
The kinds are Jepsen's: registers, sets, counters; and those that replication finds hard.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

from google.cloud import firestore

from replication.documents.wire import micros
from tests.emulator.application import Op, Write

_ids = itertools.count(1)
_ATTEMPTS_MAX = 20
"""Of one transaction: the workers write the same documents, and the emulator aborts one of two."""


@dataclass(frozen=True, slots=True)
class Seen(Write):
    """One acknowledged write and what it replaced.

    `id` tells it from all others; documents carry it as `write`. `saw` is the id that the document it replaced
    carried, None where there was no document.
    """

    id: int
    saw: int | None


@dataclass(slots=True)
class Author:
    """One replica's client, logging; for one thread, so that the log has its writes in the order of commits."""

    replica: str
    client: firestore.Client
    log: list[Seen] = field(default_factory=list)

    def set(self, path: str, **fields: Any) -> None:
        """Write a document whole."""
        self._write(path, "set", lambda _: fields)

    def change(self, path: str, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        """Update a document's fields by what they are; creates it where there is none."""
        self._write(path, "update", change)

    def delete(self, path: str) -> None:
        """Delete a document; nothing where there is none."""
        self._write(path, "delete", lambda _: {})

    def _write(self, path: str, op: Op, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        reference = self.client.document(path)
        mine = next(_ids)

        def write(transaction: firestore.Transaction) -> tuple[Any, dict[str, Any]]:
            [found] = transaction.get_all([reference])
            fields = {**change(found.to_dict() or {}), "write": mine, "at": self.replica}
            if op == "delete":
                transaction.delete(reference)
            elif op == "update" and found.exists:
                transaction.update(reference, fields)
            else:
                transaction.set(reference, fields)
            return found, fields

        transaction = self.client.transaction(max_attempts=_ATTEMPTS_MAX)
        found, fields = firestore.transactional(write)(transaction)
        [result] = cast(list[Any], transaction.write_results)
        if found.exists:
            saw, seen_time = found.get("write"), micros(found.update_time.timestamp_pb())
        elif op == "delete":
            return
        else:
            saw, seen_time, op = None, 0, "set"
        if op == "delete":
            # The emulator tells a delete's time in whole seconds only; this orders it as well.
            self.log.append(Seen(self.replica, path, op, {}, seen_time + 1, mine, saw))
        else:
            time = micros(result.update_time.timestamp_pb())
            self.log.append(Seen(self.replica, path, op, fields, time, mine, saw))


Workload = Callable[[Author, str, random.Random], Iterator[None]]
"""Writes without end as one replica's application, below a prefix; a step each time it is asked for one."""


def registers(author: Author, prefix: str, dice: random.Random) -> Iterator[None]:
    """A few documents that everybody overwrites whole."""
    while True:
        author.set(f"{prefix}/{dice.randrange(6)}", value=dice.randrange(1000))
        yield


def elements(author: Author, prefix: str, _dice: random.Random) -> Iterator[None]:
    """A set that only grows: each element is a document that nobody writes again."""
    for number in itertools.count():
        author.set(f"{prefix}/{author.replica}-{number}", number=number)
        yield


def counters(author: Author, prefix: str, dice: random.Random) -> Iterator[None]:
    """Read, add one, write: as good as last-write-wins makes a counter, but none of the losers is silent."""
    while True:
        author.change(f"{prefix}/{dice.randrange(4)}", lambda now: {"count": now.get("count", 0) + 1})
        yield


def reborn(author: Author, prefix: str, dice: random.Random) -> Iterator[None]:
    """Documents that are deleted and created again, by anybody."""
    while True:
        path = f"{prefix}/{dice.randrange(6)}"
        author.set(path, life=dice.randrange(1000))
        yield
        if dice.random() < 0.7:
            author.delete(path)
            yield


def hot(author: Author, prefix: str, dice: random.Random) -> Iterator[None]:
    """One document that all write as fast as they can."""
    while True:
        if dice.random() < 0.5:
            author.set(f"{prefix}/0", stock=dice.randrange(100))
        else:
            author.change(f"{prefix}/0", lambda now: {"stock": now.get("stock", 0) - 1})
        yield


def large(author: Author, prefix: str, dice: random.Random) -> Iterator[None]:
    """Few documents, each too large for one packet, read or batch to go unharmed by a cut connection."""
    while True:
        path = f"{prefix}/{dice.randrange(3)}"
        author.set(path, text=chr(dice.randrange(97, 123)) * dice.randrange(100_000, 600_000))
        yield
        author.change(path, lambda now: {"length": len(now["text"]) if "text" in now else 0})
        yield


WORKLOADS: Mapping[str, Workload] = {
    one.__name__: one for one in (registers, elements, counters, reborn, hot, large)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How much to write: at each replica `steps` of each workload, by their turns."""

    workloads: Sequence[str]
    steps: int
    seed: int

    def write(self, name: str, clients: Mapping[str, firestore.Client]) -> dict[str, list[Seen]]:
        """Write it at all replicas side by side, below `{name}_{workload}`; the log of each workload."""
        with ThreadPoolExecutor(len(clients)) as threads:
            logs = list(threads.map(lambda replica: self._at(replica, name, clients[replica]), clients))
        return {
            workload: list(itertools.chain.from_iterable(log[workload] for log in logs))
            for workload in self.workloads
        }

    def _at(self, replica: str, name: str, client: firestore.Client) -> dict[str, list[Seen]]:
        authors = {workload: Author(replica, client) for workload in self.workloads}
        running = [
            WORKLOADS[workload](
                author, f"{name}_{workload}", random.Random(f"{self.seed}/{workload}/{replica}")
            )
            for workload, author in authors.items()
        ]
        for _ in range(self.steps):
            for workload in running:
                next(workload)
        return {workload: author.log for workload, author in authors.items()}

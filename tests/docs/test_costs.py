"""The table in docs/costs.md is true: each row marked "counted" is counted here, for two to five replicas."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conflict.version import Version
from replication.adapters.memory import Change, MemoryDatabase
from replication.adapters.memory_documents import stored_size
from replication.apply.batch import apply
from replication.changes.capture import Dropped, ReadTombstone, Why, capture, run_capture
from replication.documents.metadata import Meta, MetadataCodec, digest_of
from replication.documents.wire import MICROS, Document, Value
from replication.effects import Acknowledge, BatchWrite, Commit, Observe, Publish, Read, Reading
from replication.fleet.addressing import addressed
from replication.fleet.model import Fleet, Replica, Rule, Target
from replication.ports import Found, Message, Received

PAGE = Path(__file__).parents[2] / "docs" / "costs.md"
PATH = "orders/1"
SOURCE = "r0"
START = 1_700_000_000 * MICROS


class CountingFleet:
    """Replicas in memory and the core between them, every change delivered at once, every operation counted."""

    def __init__(self, replicas: int) -> None:
        names = [f"r{number}" for number in range(replicas)]
        self._fleet = Fleet(
            project="shop",
            topic="changes",
            replicas={name: Replica(id=name, project="shop", database=name, location=name) for name in names},
            rules=(Rule(match="{document=**}"),),
        )
        self._now = START
        self._events: list[tuple[str, Change]] = []
        self.databases = {name: self._database(name) for name in names}
        self.counts: Counter[str] = Counter()

    def _database(self, name: str) -> MemoryDatabase:
        database = MemoryDatabase("shop", name, now=lambda: self._now)
        database.on_change(lambda change: self._events.append((name, change)))
        return database

    def settle(self) -> Counter[str]:
        """Deliver until nothing is left; what that took since the last call."""
        self.counts = Counter()
        while self._events:
            self._now += 1000
            self._capture(*self._events.pop(0))
        return self.counts

    def _capture(self, _replica: str, change: Change) -> None:
        result = run_capture(capture(change.body, change.headers, self._fleet), self._tombstone)
        if isinstance(result, Dropped) and result.why is Why.UNCHANGED:
            return  # emulators report guards that changed nothing; Firestore does not
        self.counts["events"] += 1
        if isinstance(result, Message):
            self._publish(result)

    def _tombstone(self, wanted: ReadTombstone) -> Found:
        self.counts["tombstones read by capture"] += 1
        return self.databases[wanted.replica].read([wanted.path], timeout=0)[0]

    def _publish(self, message: Message) -> None:
        self.counts["published"] += 1
        for name in self._fleet.replicas:
            if addressed(message.attributes, name):
                self.counts["applied"] += 1
                self._apply(message, Target(self._fleet, self._fleet.replica(name)))

    def _apply(self, message: Message, target: Target) -> None:
        steps = apply([Received(message, "m", "a")], target)
        answer: Any = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration:
                return
            answer = self._perform(effect, self.databases[target.replica.id])

    def _perform(self, effect: Any, database: MemoryDatabase) -> Any:
        match effect:
            case Read():
                self.counts["read"] += len(effect.paths)
                return Reading(database.read(effect.paths, timeout=0), 0.0)
            case BatchWrite() | Commit():
                deletes = sum(write.WhichOneof("operation") == "delete" for write in effect.writes)
                self.counts["deletes"] += deletes
                self.counts["written"] += len(effect.writes) - deletes
                act = database.commit if isinstance(effect, Commit) else database.batch_write
                return act(effect.writes, timeout=0)
            case Publish(dead_letters=False):
                for message in effect.messages:
                    self._publish(message)
            case Acknowledge() | Observe():
                pass
            case _:
                raise AssertionError(f"not expected without faults: {effect}")
        return None


ROWS = {
    "Pub/Sub messages published": "published",
    "messages applied": "applied",
    "documents read by workers": "read",
    "documents written by workers": "written",
    "deletes by workers": "deletes",
    "tombstones read by capture": "tombstones read by capture",
    "Firestore events, and capture requests": "events",
}


def documented(replicas: int) -> dict[str, list[int]]:
    """The page's counted rows for a number of replicas: create, update, delete."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if cells[0] in ROWS and cells[-1] == "counted":
            found[ROWS[cells[0]]] = [_number(cell, replicas) for cell in cells[1:4]]
    return found


def _number(cell: str, replicas: int) -> int:
    # The first term of the cell, such as "2N − 1 guards": a number, or a multiple of N less something.
    match = re.match(r"(\d*)(N?)(?: − (\d+))?", cell)
    assert match is not None
    if not match[2]:
        return int(match[1])
    return int(match[1] or 1) * replicas - int(match[3] or 0)


@pytest.mark.parametrize("replicas", [2, 3, 5])
def test_the_table_of_costs_is_what_the_core_does(replicas: int) -> None:
    fleet = CountingFleet(replicas)
    database = fleet.databases[SOURCE]
    database.set(PATH, {"status": Value(string_value="pending")})
    created = fleet.settle()
    database.update(PATH, {"status": Value(string_value="approved")})
    updated = fleet.settle()
    database.delete(PATH)
    deleted = fleet.settle()
    assert all(held.get(PATH) is None for held in fleet.databases.values())
    counted = {name: [step[name] for step in (created, updated, deleted)] for name in ROWS.values()}
    assert documented(replicas) == counted


@pytest.mark.parametrize("name", ["costs.md", "applications.md"])
def test_the_metadata_is_as_large_as_the_page_says(name: str) -> None:
    text = PAGE.with_name(name).read_text()
    [written] = re.findall(r"about (\d+) bytes in each document that has `_repl`", text)
    assert metadata_bytes(3) == pytest.approx(int(written), abs=15)


def test_each_further_replica_adds_what_the_page_says() -> None:
    text = PAGE.with_name("applications.md").read_text()
    [written] = re.findall(r"about (\d+) more for each further one", text)
    assert metadata_bytes(5) - metadata_bytes(3) == pytest.approx(2 * int(written), abs=2)


def metadata_bytes(replicas: int) -> int:
    """The size of `_repl` by Firestore's own count."""
    clock = {f"r{number}": START for number in range(replicas)}
    version = Version(clock, START, SOURCE, START, digest_of(b"a body"))
    document = Document()
    MetadataCodec().encode(PATH, Meta(version, base=START, read=START), document.fields["_repl"])
    return stored_size(PATH, document.fields) - stored_size(PATH, Document().fields)

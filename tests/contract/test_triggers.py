"""The memory backend's events are those of the emulator's triggers, field for field and header for header."""

import base64
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from replication.adapters.firestore import open_database
from replication.adapters.memory import Change, MemoryDatabase
from replication.documents.wire import DocumentEventData, micros
from replication.fleet.model import Replica
from replication.ports import Database
from tests.contract.documents import integer, mapping, overwrite, put, remove
from tests.support.polling import PATIENCE_S
from workers.local.emulators import FirestoreEmulator
from workers.runtime.triggers import register_trigger

START = 1_800_000_000_000_000
HEADERS = (
    "content-type",
    "ce-specversion",
    "ce-type",
    "ce-subject",
    "ce-project",
    "ce-database",
    "ce-namespace",
    "ce-document",
)
"""Those that say the same on both. Not `ce-source`, where the emulator doubles a word, nor id, time, place."""


@dataclass(frozen=True)
class Watched:
    """A database and what its trigger brings, in order."""

    database: Database
    next: Callable[[], Change]


@pytest.fixture
def watched(backend: str, project: str) -> Iterator[Watched]:
    changes: queue.Queue[Change] = queue.Queue()

    def next_change() -> Change:
        return changes.get(timeout=PATIENCE_S)

    if backend == "memory":
        database = MemoryDatabase(
            project, "app-eu", now=lambda: START, whole_second_times=True, unchanged_fires=True
        )
        database.on_change(changes.put)
        yield Watched(database, next_change)
        return
    with receiver(changes) as address, FirestoreEmulator.start(functions_emulator=address) as emulator:
        replica = Replica(
            id="eu", project=project, database="app-eu", location="europe-west1", emulator_host=emulator.host
        )
        register_trigger(replica, emulator.host)
        with contextlib.closing(open_database(replica)) as opened:
            yield Watched(opened, next_change)


@contextlib.contextmanager
def receiver(changes: "queue.Queue[Change]") -> Iterator[str]:
    """An HTTP server that the emulator's triggers call; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            changes.put(Change(base64.b64decode(body), headers))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(PATIENCE_S)


def test_events_bring_states_names_and_times(watched: Watched) -> None:
    """One history, so that the emulator is started once: each step, then what it must bring."""
    database, path = watched.database, "carts/7/items/2"
    name = database.prefix + path

    def bring(value: tuple[int, int, int] | None, old_value: tuple[int, int, int] | None) -> None:
        change = watched.next()
        assert headers_of(change) == expected_headers(database, path)
        event = DocumentEventData.FromString(change.body)
        assert (state(event, "value", name), state(event, "old_value", name)) == (value, old_value)

    created = put(database, path, {"n": integer(1), "m": mapping(a=integer(1))})
    bring((1, created, created), None)
    updated = database.commit([overwrite(database, path, {"n": integer(2)}, mask=["n"])], timeout=PATIENCE_S)
    bring((2, created, updated), (1, created, created))
    # Production sends nothing for the next two; the emulator does, and so must what imitates it.
    database.commit([overwrite(database, path, mask=[], update_time=updated)], timeout=PATIENCE_S)
    bring((2, created, updated), (2, created, updated))
    database.commit([remove(database, path)], timeout=PATIENCE_S)
    bring(None, (2, created, updated))
    database.commit([remove(database, path, exists=False)], timeout=PATIENCE_S)
    bring(None, None)
    again = put(database, path, {"n": integer(3)})
    bring((3, again, again), None)


def headers_of(change: Change) -> dict[str, str]:
    assert change.headers["ce-id"]
    assert len(change.headers["ce-time"]) == len("2027-01-15T08:00:00Z")
    assert change.headers["ce-source"].startswith("//firestore.googleapis.com/projects/")
    return {header: change.headers[header] for header in HEADERS}


def expected_headers(database: Database, path: str) -> dict[str, str]:
    _, project, _, name, _ = database.prefix.rstrip("/").split("/")
    return {
        "content-type": "application/protobuf",
        "ce-specversion": "1.0",
        "ce-type": "google.cloud.firestore.document.v1.written",
        "ce-subject": f"documents/{path}",
        "ce-project": project,
        "ce-database": name,
        "ce-namespace": "(default)",
        "ce-document": path,
    }


def state(event: Any, side: str, name: str) -> tuple[int, int, int] | None:
    """(field `n`, create time, update time) of one side of an event; None where it is absent."""
    if not event.HasField(side):
        return None
    document = getattr(event, side)
    assert document.name == name
    return document.fields["n"].integer_value, micros(document.create_time), micros(document.update_time)

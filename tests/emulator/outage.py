"""A replica's database that hangs for a time: connections stay open and nothing answers."""

import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from google.cloud import firestore

from tests.support.polling import PATIENCE_S, eventually
from workers.local.fleet import LocalFleet

_BATCH_MAX = 500


def write_many(client: firestore.Client, collection: str, count: int) -> None:
    """Create documents 0, 1, … in a collection, quickly."""
    for start in range(0, count, _BATCH_MAX):
        batch = client.batch()
        for number in range(start, min(count, start + _BATCH_MAX)):
            batch.set(client.document(f"{collection}/{number}"), {"number": number})
        batch.commit()


def count(client: firestore.Client, collection: str) -> int:
    """How many documents a collection has."""
    [[found]] = client.collection(collection).count().get()  # type: ignore[no-untyped-call]
    return int(found.value)


class Outage:
    """Freezes the emulator of a replica of a fleet while it is entered."""

    def __init__(self, fleet: LocalFleet, replica: str) -> None:
        self.fleet = fleet
        self.replica = replica
        self._began = 0.0

    def __enter__(self) -> Self:
        self.fleet.emulators[self.replica].pause()
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def seconds(self) -> float:
        """For how long it has lasted."""
        return time.monotonic() - self._began

    def last(self, seconds: float) -> None:
        """Wait until it has lasted so long."""
        eventually(lambda: self.seconds >= seconds, seconds + PATIENCE_S, every=0.1)

    def end(self) -> None:
        """Let the emulator go on; again does nothing."""
        with suppress(ProcessLookupError):
            self.fleet.emulators[self.replica].resume()

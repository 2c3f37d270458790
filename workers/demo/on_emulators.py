"""The demo on the official emulators: every part a real process, the application the official client.

The workers' metrics come over OTLP, as they would go to any collector.
"""

from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from google.api_core.exceptions import NotFound
from google.cloud import firestore
from google.cloud.firestore_v1.vector import Vector

from conflict.values import GeoPoint, Reference
from replication.documents.plain import Documents
from replication.documents.references import NEUTRAL
from replication.errors import FirefleetError
from workers.demo.backend import REPLICAS
from workers.demo.shop import COLLECTIONS, Link
from workers.local.eventarc import Delivery
from workers.local.fleet import LocalFleet
from workers.local.meters import Meters
from workers.local.otlp import Receiver

EXPORT_MS = 300
PAUSE_S = 0.03
"""Between two writes of a replica: the emulator sends its triggers one at a time, a few hundred a second."""
QUIET_S = 1.5
"""Several of those intervals, and longer than a change needs from commit to commit."""
SHUFFLE_S = 0.05
"""By how much the stand-in for Eventarc delays events at random, so that they arrive in no order."""
_LOG_TAIL = 2_000


class EmulatedFleet:
    """The fleet on emulators: a context manager. `replicating` False leaves the workers out."""

    def __init__(self, *, seed: int, replicating: bool = True, log: Callable[[str], None]) -> None:
        self.meters = Meters()
        self.pause = PAUSE_S
        self.quiet = QUIET_S
        self._receiver = Receiver(self.meters.take)
        self._delivery = Delivery(shuffle=SHUFFLE_S, duplicate=0.01, seed=seed)
        self._workers = 1 if replicating else 0
        self._log = log
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            # Stops what has been started if the rest does not start.
            starting.callback(self._stack.close)
            self._start()
            starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._receiver.start()
        self._stack.callback(self._receiver.stop)
        local = LocalFleet(
            log=self._log,
            replicas=REPLICAS,
            # One process for the three databases: each Java machine takes seconds to start.
            emulators="one",
            collections=COLLECTIONS,
            workers=self._workers,
            delivery=self._delivery,
            environment=self._receiver.environment(interval_ms=EXPORT_MS),
        )
        self._local = self._stack.enter_context(local)
        self.fleet = local.fleet
        self._clients = {replica: local.client(replica) for replica in REPLICAS}

    def writer(self, replica: str) -> "ClientWriter":
        """See `Running.writer`."""
        return ClientWriter(self._clients[replica])

    def read(self, replica: str) -> Documents:
        """See `Running.read`."""
        return {
            snapshot.reference.path: {name: _plain(value) for name, value in sorted(snapshot.to_dict().items())}
            for collection in self._clients[replica].collections()
            for snapshot in collection.recursive().stream()
        }

    def activity(self) -> Hashable | None:
        """See `Running.activity`."""
        stats = self._local.stand_in_stats()
        if not stats or stats["waiting"]:
            return None
        return stats["received"], frozenset(self.meters.outcomes().items())

    def check(self) -> None:
        """See `Running.check`."""
        local = self._local
        for process in (
            local.capture,
            local.stand_in,
            *(one for some in local.workers.values() for one in some),
        ):
            if process is not None and not process.running:
                tail = process.log_text()[-_LOG_TAIL:]
                raise FirefleetError(
                    f"{process.name} ended with status {process.returncode}; its log ends:\n{tail}"
                )


class ClientWriter:
    """The shop's client of a replica: the official one, as any application uses it."""

    def __init__(self, client: firestore.Client) -> None:
        self._client = client

    def set(self, path: str, fields: Mapping[str, Any]) -> None:
        """See `Writer.set`."""
        self._client.document(path).set(self._linked(dict(fields)))

    def update(self, path: str, fields: Mapping[str, Any]) -> None:
        """See `Writer.update`."""
        try:
            self._client.document(path).update(self._linked(dict(fields)))
        except NotFound:
            self.set(path, fields)

    def delete(self, path: str) -> None:
        """See `Writer.delete`."""
        self._client.document(path).delete()

    def _linked(self, value: Any) -> Any:
        match value:
            case Link():
                return self._client.document(value.path)
            case list():
                return [self._linked(inner) for inner in value]
            case dict():
                return {name: self._linked(inner) for name, inner in value.items()}
            case _:
                return value


def _plain(value: Any) -> Any:
    """One of the official client's values as a plain one."""
    match value:
        case firestore.DocumentReference():
            # Of the client's own database: it cannot read a document that refers to another one.
            return Reference(NEUTRAL + value.path)
        case firestore.GeoPoint():
            return GeoPoint(value.latitude, value.longitude)
        case datetime():
            # The client's own class, which compares and prints differently, as the plain one.
            return datetime.combine(value.date(), value.timetz())
        case Vector():
            return {"__type__": "__vector__", "value": list(value)}
        case list():
            return [_plain(inner) for inner in value]
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case _:
            return value

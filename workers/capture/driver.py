"""Drive the capture of one event: read what it asks for, publish what it ends in, count what is dropped."""

import logging
from collections.abc import Mapping
from typing import assert_never

from replication import metrics
from replication.apply.outcomes import Outcome
from replication.changes.capture import Dropped, Why, capture
from replication.changes.envelope import DOCUMENT
from replication.errors import FirefleetError
from replication.fleet.model import Fleet
from replication.ports import Database, Message, Telemetry
from workers.capture.outbox import Outbox
from workers.capture.tombstones import Tombstones

LARGE_EVENT_BYTES = 400 * 1024
"""Eventarc's limit is 512 KB; what becomes of larger events is not documented, so say it before."""

logger = logging.getLogger(__name__)


class Driver:
    """Captures events of all replicas, any number at a time. `databases` by replica id."""

    def __init__(
        self, fleet: Fleet, databases: Mapping[str, Database], outbox: Outbox, telemetry: Telemetry
    ) -> None:
        self._fleet = fleet
        self._tombstones = {replica: Tombstones(replica, database) for replica, database in databases.items()}
        self._outbox = outbox
        self._telemetry = telemetry

    async def run(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Capture one event; returns when Pub/Sub has its message, or when the event concerns no one else.

        Raises `EventError` if it is not an event of this fleet, `Transient` or `Refused` if it must be sent
        again.
        """
        captured = await self._capture(body, headers)
        if len(body) > LARGE_EVENT_BYTES:
            self._warn_of_large(_replica_of(captured), headers, len(body))
        if isinstance(captured, Message):
            await self._outbox.send(captured)
        else:
            self._count_dropped(captured)

    async def _capture(self, body: bytes, headers: Mapping[str, str]) -> Message | Dropped:
        steps = capture(body, headers, self._fleet)
        try:
            wanted = next(steps)
            while True:
                try:
                    found = await self._tombstones[wanted.replica].read(wanted.path)
                except FirefleetError:
                    # The event is sent again and may fail again: say now that it is near the limit.
                    if len(body) > LARGE_EVENT_BYTES:
                        self._warn_of_large(wanted.replica, headers, len(body))
                    raise
                wanted = steps.send(found)
        except StopIteration as end:
            captured: Message | Dropped = end.value
            return captured

    def _count_dropped(self, dropped: Dropped) -> None:
        match dropped.why:
            case Why.UNCHANGED:
                # Only the emulator sends such events: in production this count says that something is wrong.
                self._telemetry.count(metrics.CAPTURE_UNCHANGED)
            case Why.ECHO | Why.OWN:
                self._telemetry.count(metrics.CHANGES, outcome=Outcome.ECHO.value, source=dropped.replica)
            case Why.LOCAL | Why.EXPIRED:
                pass  # an application's change, or Firestore's, that stays where it was made
            case _:
                assert_never(dropped.why)

    def _warn_of_large(self, replica: str, headers: Mapping[str, str], size: int) -> None:
        if not replica:
            return  # nothing happened in it
        self._telemetry.count(metrics.CAPTURE_LARGE_EVENTS, source=replica)
        logger.warning(
            "the event of %s at %s has %d bytes, near Eventarc's limit of 512 KB: a larger change may never "
            "reach the other replicas. An event holds the document before and after: keep documents below "
            "250 KB",
            headers.get(DOCUMENT, "a document"),
            replica,
            size,
        )

    def close(self) -> None:
        """Begin no further read of tombstones."""
        for tombstones in self._tombstones.values():
            tombstones.close()


def _replica_of(captured: Message | Dropped) -> str:
    """Where the event happened; empty where nothing happened in it."""
    return captured.attributes["replica"] if isinstance(captured, Message) else captured.replica

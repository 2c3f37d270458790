"""Drive intake and flush with real clients: perform each effect, and release what could not be finished."""

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar, assert_never

from replication.analytics.effects import Effect, Part, Refusal, Settle, SideBySide
from replication.analytics.flush import flush
from replication.analytics.intake import finish, sort
from replication.analytics.job import Job
from replication.analytics.packing import Output
from replication.effects import (
    Acknowledge,
    BatchWrite,
    Observe,
    Pause,
    Postpone,
    PublishEach,
    Read,
    Reading,
    drive,
)
from replication.errors import FirefleetError
from replication.ports import Received, Written
from workers.analytics.clients import AnalyticsClients
from workers.analytics.guarded import GuardedBuffer
from workers.analytics.observe import AnalyticsObserver
from workers.runtime.deliveries import Deliveries
from workers.runtime.loop import Loop
from workers.runtime.publishing import CONFIRM_S_MAX, publish_each
from workers.runtime.stop import Stopping

R = TypeVar("R")

Spread = Callable[[Callable[[Part], list[Refusal]], Iterable[Part]], Iterable[list[Refusal]]]
"""Like `map`; an executor's runs several requests at once."""

log = logging.getLogger(__name__)

FIRESTORE = "Firestore"
"""The database's name where a worker reports what it cannot reach."""
READ_S_MAX = 5.0
WRITE_S_MAX = 5.0


class AnalyticsDriver:
    """Takes and flushes events in one loop; `spread` may use other threads for the parts of a flush."""

    def __init__(
        self,
        loop: Loop,
        job: Job,
        clients: AnalyticsClients,
        buffer: GuardedBuffer,
        deliveries: Deliveries,
        *,
        spread: Spread = map,
    ) -> None:
        self._loop = loop
        self._job = job
        self._clients = clients
        self._buffer = buffer
        self._deliveries = deliveries
        self._spread = spread
        self._observer = AnalyticsObserver(job.replica, clients.telemetry, loop.progress.journal)
        self._flushes = 0

    def take(self, pulled: Sequence[Received]) -> None:
        """Hold, acknowledge, dead-letter or release each message of a pull."""
        if not pulled:
            return
        # Before the buffer has them: a flush may acknowledge them at any time from then on.
        self._deliveries.hold(pulled)
        found = sort(pulled, self._job.schema)
        offered = self._buffer.offer(found)
        self._run(finish(found, offered, self._job), left=lambda: offered.left(pulled))

    def flush(self) -> None:
        """Store all that waits. Returns when each event is stored or dead-lettered, or released."""
        held = self._buffer.take()
        if not held:
            return
        began = self._loop.progress.now()
        self._flushes += 1
        output = Output(
            prefix=self._clients.database.prefix,
            collection=self._job.settings.collection,
            types=self._job.settings.types,
            batch=f"{self._job.token}-{self._flushes}",
        )
        self._run(flush(held, self._job, output), left=lambda: self._buffer.give_up(held))
        self._observer.record_flush(len(held), self._loop.progress.now() - began)

    def _run(self, steps: Generator[Effect, Any, R], *, left: Callable[[], Iterable[str]]) -> R | None:
        """Perform steps to their end, and return what they return.

        If that is not possible, because the worker stops or this program has a fault, release the deliveries
        that are still `left`, and return None.
        """
        try:
            return drive(steps, self._perform)
        except Stopping:
            released = self._release(left())
            log.info("stopping: releasing %d messages", released)
        except Exception:
            released = self._release(left())
            log.exception("a fault of this program: releasing %d messages", released)
            self._observer.record_failure()
        return None

    def _perform(self, effect: Effect) -> Any:
        self._loop.beat()
        match effect:
            case Read():
                return self._read(effect)
            case BatchWrite():
                return self._write(effect)
            case PublishEach():
                return self._publish(effect)
            case Acknowledge():
                return self._deliveries.acknowledge(effect.ack_ids)
            case Postpone():
                return self._release(effect.ack_ids, effect.seconds)
            case Pause():
                return self._loop.pause(effect.attempt, effect.cause, holding=len(self._deliveries))
            case Observe():
                return self._observer.record(effect.observations)
            case Settle():
                return self._buffer.settle(effect.held, stored=effect.stored)
            case SideBySide():
                return self._run_parts(effect)
            case _:
                assert_never(effect)

    def _read(self, effect: Read) -> Reading:
        database, timeout = self._clients.database, self._loop.stop.within(READ_S_MAX)
        found = self._loop.reach(FIRESTORE, lambda: database.read(effect.paths, timeout=timeout))
        # No write of a flush rests on a read, so no one asks how old this one is.
        return Reading(found, 0.0)

    def _write(self, effect: BatchWrite) -> list[Written]:
        database, timeout = self._clients.database, self._loop.stop.within(WRITE_S_MAX)
        return self._loop.reach(FIRESTORE, lambda: database.batch_write(effect.writes, timeout=timeout))

    def _publish(self, effect: PublishEach) -> list[FirefleetError | None]:
        publisher = self._clients.dead_letters if effect.dead_letters else self._clients.warehouse
        if publisher is None:
            raise LookupError("an anonymiser without a publisher for the warehouse")
        return publish_each(publisher, effect.messages, seconds=self._loop.stop.within(CONFIRM_S_MAX))

    def _release(self, ack_ids: Iterable[str], seconds: int = 0) -> int:
        released = self._deliveries.postpone(ack_ids, seconds)
        self._observer.record_released(released)
        return released

    def _run_parts(self, effect: SideBySide) -> list[list[Refusal]]:
        returned = []
        for refused in self._spread(self._run_part, effect.parts):
            self._loop.beat()
            returned.append(refused)
        return returned

    def _run_part(self, part: Part) -> list[Refusal]:
        return self._run(part.steps, left=lambda: self._buffer.give_up(part.held)) or []

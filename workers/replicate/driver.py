"""Drive the application of a batch with real clients: perform each effect, hold the messages meanwhile.

Deadlines: a write is never sent later than `WRITE_AFTER_READ_S_MAX` after the read it rests on began, and its
call ends by then, because what this system writes is recognised by being written within 10 s of its read.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any, assert_never

from replication import metrics
from replication.apply.batch import apply
from replication.apply.effects import Effect
from replication.effects import (
    Acknowledge,
    BatchWrite,
    Commit,
    Expired,
    Observe,
    Pause,
    Postpone,
    Publish,
    Read,
    Reading,
    drive,
)
from replication.fleet.model import Target
from replication.ports import Received
from workers.replicate.clients import Clients
from workers.replicate.observe import Observer
from workers.runtime.clock import now_us
from workers.runtime.deliveries import Deliveries
from workers.runtime.loop import PUBSUB, Loop
from workers.runtime.publishing import CONFIRM_S_MAX, publish_all
from workers.runtime.stop import Stopping, StopSignal

log = logging.getLogger(__name__)

READ_S_MAX = 6.0
WRITE_S_MAX = 5.0
WRITE_AFTER_READ_S_MAX = 9.0
"""Below the protocol's 10 s, by more than a request takes on the way."""
WRITE_S_MIN = 0.5
LEASE_S = 60
"""The subscription's acknowledgement deadline, and what an extension asks for."""


class Driver:
    """Applies batches in one puller's loop."""

    def __init__(self, loop: Loop, target: Target, clients: Clients) -> None:
        self._loop = loop
        self._target = target
        self._clients = clients
        self._database = clients.databases[target.replica.id]
        self._observer = Observer(
            target.replica.id,
            clients.telemetry,
            loop.progress.journal,
            conflicts=target.fleet.codec.conflicts,
        )
        self._deliveries = Deliveries(loop.name, clients.subscription, loop.progress, deadline_s=LEASE_S)
        self._received_us = 0

    def run(self, batch: Sequence[Received]) -> None:
        """Apply a batch. Returns when all of it is done, or released because the worker stops.

        A message that makes the application itself fail (a fault of this program) is found by halving, and
        released: Pub/Sub's own dead-letter policy takes it in the end, and its neighbours are applied.
        """
        self._received_us = now_us()
        self._deliveries.hold(batch)
        try:
            self._run(batch)
        except Stopping:
            log.info("stopping: releasing %d messages", len(self._deliveries))
        finally:
            self._deliveries.release_all()

    def _run(self, batch: Sequence[Received]) -> None:
        try:
            drive(apply(batch, self._target), self._perform)
        except Stopping:
            raise
        except Exception:
            left = [item for item in batch if item.ack_id in self._deliveries]
            if len(left) <= 1:
                log.exception(
                    "applying message %s failed; it is released and will be delivered again",
                    left[0].id if left else "?",
                )
                self._clients.telemetry.count(metrics.FAILURES, target=self._target.replica.id)
                return
            middle = len(left) // 2
            self._run(left[:middle])
            self._run(left[middle:])

    def _perform(self, effect: Effect) -> Any:
        self._loop.beat()
        self._deliveries.extend()
        match effect:
            case Read():
                return self._read(effect)
            case BatchWrite():
                timeout = self._write_timeout(effect.read_at)
                return self._reach_target(lambda: self._database.batch_write(effect.writes, timeout=timeout))
            case Commit():
                timeout = self._write_timeout(effect.read_at)
                return self._reach_target(lambda: self._database.commit(effect.writes, timeout=timeout))
            case Publish():
                publisher = self._clients.dead_letters if effect.dead_letters else self._clients.changes
                seconds = self._loop.stop.within(CONFIRM_S_MAX)
                return self._loop.reach(
                    PUBSUB, lambda: publish_all(publisher, effect.messages, seconds=seconds)
                )
            case Acknowledge():
                return self._deliveries.acknowledge(effect.ack_ids)
            case Postpone():
                return self._postpone(effect)
            case Observe():
                return self._observer.record(effect.observations, received_us=self._received_us)
            case Pause():
                return self._loop.pause(effect.attempt, effect.cause, holding=len(self._deliveries))
            case _:
                assert_never(effect)

    def _read(self, effect: Read) -> Reading:
        at = time.monotonic()
        database = self._clients.databases[effect.replica]
        timeout = self._loop.stop.within(READ_S_MAX)
        if effect.replica != self._target.replica.id:
            # A primary that is down does not make this worker unready: it has a replica to serve.
            return Reading(database.read(effect.paths, timeout=timeout), at)
        return Reading(self._reach_target(lambda: database.read(effect.paths, timeout=timeout)), at)

    def _reach_target(self, call: Any) -> Any:
        return self._loop.reach(self._target.replica.id, call)

    def _write_timeout(self, read_at: float | None) -> float:
        return write_timeout(read_at, time.monotonic(), self._loop.stop)

    def _postpone(self, effect: Postpone) -> None:
        log.warning(
            "%d writes outside their primary cannot be reverted while it is unreachable; trying again in %d s",
            len(effect.ack_ids),
            effect.seconds,
        )
        self._deliveries.postpone(effect.ack_ids, effect.seconds)


def write_timeout(read_at: float | None, now: float, stop: StopSignal) -> float:
    """How long a write may take that rests on a read begun at `read_at` (monotonic seconds; None: on none).

    Raises `Expired` when the read is too long ago, and `Stopping`.
    """
    if read_at is None:
        return stop.within(WRITE_S_MAX)
    left = read_at + WRITE_AFTER_READ_S_MAX - now
    if left < WRITE_S_MIN:
        raise Expired("the read is too long ago")
    return stop.within(min(WRITE_S_MAX, left))

"""Drive the application of a batch with real clients: perform each effect, hold the messages meanwhile.

Deadlines: a write is never sent later than `WRITE_AFTER_READ_S_MAX` after the read it rests on began, and its
call ends by then, because what this system writes is recognised by being written within 10 s of its read.
"""

import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, assert_never

from replication.apply.batch import apply
from replication.apply.effects import (
    Acknowledge,
    BatchWrite,
    Commit,
    Effect,
    Expired,
    Observe,
    Pause,
    Postpone,
    Publish,
    Read,
    Reading,
)
from replication.apply.writes import Target
from replication.documents.wire import MICROS
from replication.errors import ConditionFailed, FirefleetError, Refused, Transient
from replication.ports import Database, Publisher, Received, Subscription, Telemetry
from workers.replicate.observe import Observer
from workers.runtime.progress import Progress

log = logging.getLogger(__name__)

READ_S_MAX = 6.0
WRITE_S_MAX = 5.0
WRITE_AFTER_READ_S_MAX = 9.0
"""Below the protocol's 10 s, by more than a request takes on the way."""
WRITE_S_MIN = 0.5
PUBLISH_S_MAX = 20.0
LEASE_S = 60
"""The subscription's acknowledgement deadline, and what an extension asks for."""
LEASE_RENEW_S = 20.0
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.05, 5.0
DRAIN_S_MAX = 7.0
"""What a batch may still take after SIGTERM: Cloud Run kills after 10 s."""


class Stopping(Exception):
    """The worker has to stop before this batch is done; what is not acknowledged is released."""


class StopSignal:
    """Set once, by SIGTERM; says how long work in progress may still take."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._at = 0.0

    def set(self) -> None:
        """Stop: no new batch, and the ones in progress within `DRAIN_S_MAX`."""
        self._at = time.monotonic()
        self._event.set()

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but not past the signal; whether it came."""
        return self._event.wait(seconds)

    @property
    def left(self) -> float:
        """Seconds that work in progress still has."""
        return self._at + DRAIN_S_MAX - time.monotonic() if self.is_set() else float("inf")


@dataclass(frozen=True, slots=True)
class Clients:
    """The ports of one worker. `databases` has every replica's; only the target's is written."""

    databases: Mapping[str, Database]
    subscription: Subscription
    changes: Publisher
    dead_letters: Publisher
    telemetry: Telemetry


@dataclass(slots=True)
class _Lease:
    """The deliveries a batch holds, and when their deadline was last extended."""

    held: set[str]
    renewed: float


class Driver:
    """Applies batches for one puller thread."""

    def __init__(
        self, name: str, target: Target, clients: Clients, progress: Progress, stop: StopSignal
    ) -> None:
        self._name = name
        self._target = target
        self._clients = clients
        self._progress = progress
        self._stop = stop
        self._observer = Observer(
            target.replica.id, clients.telemetry, progress.journal, conflicts=target.fleet.codec.conflicts
        )
        self._received_us = 0

    def run(self, batch: Sequence[Received]) -> None:
        """Apply a batch. Returns when all of it is done, or released because the worker stops.

        A message that makes the application itself fail (a fault of this program) is found by halving, and
        released: Pub/Sub's own dead-letter policy takes it in the end, and its neighbours are applied.
        """
        self._received_us = time.time_ns() // 1000
        self._progress.hold(self._name, len(batch), min(item.publish_time for item in batch))
        lease = _Lease({item.ack_id for item in batch}, time.monotonic())
        try:
            self._run(batch, lease)
        except Stopping:
            log.info("stopping: %d messages are released", len(lease.held))
        finally:
            self._release(lease.held)
            self._progress.hold(self._name, 0, 0)

    def _run(self, batch: Sequence[Received], lease: _Lease) -> None:
        try:
            self._drive(batch, lease)
        except Stopping:
            raise
        except Exception:
            left = [item for item in batch if item.ack_id in lease.held]
            if len(left) <= 1:
                log.exception(
                    "applying message %s failed; it is released and will be delivered again",
                    left[0].id if left else "?",
                )
                self._clients.telemetry.count("firefleet.failures", target=self._target.replica.id)
                return
            middle = len(left) // 2
            self._run(left[:middle], lease)
            self._run(left[middle:], lease)

    def _drive(self, batch: Sequence[Received], lease: _Lease) -> None:
        steps = apply(batch, self._target)
        answer: Any = None
        error: Exception | None = None
        try:
            while True:
                effect = steps.send(answer) if error is None else steps.throw(error)
                answer = error = None
                try:
                    answer = self._perform(effect, lease)
                except (Transient, ConditionFailed, Refused, Expired) as failure:
                    error = failure
        except StopIteration:
            pass
        finally:
            steps.close()

    def _perform(self, effect: Effect, lease: _Lease) -> Any:
        self._keep(lease)
        match effect:
            case Read():
                at = time.monotonic()
                database = self._clients.databases[effect.replica]
                timeout = self._within(READ_S_MAX)
                if effect.replica != self._target.replica.id:
                    # A primary that is down does not make this worker unready: it has a replica to serve.
                    return Reading(database.read(effect.paths, timeout=timeout), at)
                return Reading(
                    self._reach(effect.replica, lambda: database.read(effect.paths, timeout=timeout)), at
                )
            case BatchWrite():
                timeout = self._write_timeout(effect.read_at)
                return self._reach(
                    self._target.replica.id,
                    lambda: self._database.batch_write(effect.writes, timeout=timeout),
                )
            case Commit():
                timeout = self._write_timeout(effect.read_at)
                return self._reach(
                    self._target.replica.id, lambda: self._database.commit(effect.writes, timeout=timeout)
                )
            case Publish():
                return self._reach("Pub/Sub", lambda: self._publish(effect))
            case Acknowledge():
                return self._acknowledge(effect.ack_ids, lease)
            case Postpone():
                return self._postpone(effect, lease)
            case Observe():
                return self._observer.record(effect.observations, received_us=self._received_us)
            case Pause():
                return self._pause(effect, lease)
            case _:
                assert_never(effect)

    @property
    def _database(self) -> Database:
        return self._clients.databases[self._target.replica.id]

    def _within(self, seconds: float) -> float:
        left = min(seconds, self._stop.left)
        if left <= 0:
            raise Stopping
        return left

    def _write_timeout(self, read_at: float | None) -> float:
        if read_at is None:
            return self._within(WRITE_S_MAX)
        left = read_at + WRITE_AFTER_READ_S_MAX - time.monotonic()
        if left < WRITE_S_MIN:
            raise Expired("the read is too long ago")
        return self._within(min(WRITE_S_MAX, left))

    def _reach(self, what: str, call: Any) -> Any:
        try:
            answer = call()
        except Transient as error:
            self._progress.trouble(self._name, what, str(error))
            raise
        except FirefleetError:
            # It was reached, and has answered.
            self._progress.trouble(self._name, what, None)
            raise
        self._progress.trouble(self._name, what, None)
        return answer

    def _publish(self, effect: Publish) -> None:
        publisher = self._clients.dead_letters if effect.dead_letters else self._clients.changes
        deadline = time.monotonic() + PUBLISH_S_MAX
        futures: list[Future[str]] = [publisher.submit(message) for message in effect.messages]
        for future in futures:
            try:
                future.result(timeout=max(0.0, deadline - time.monotonic()))
            except FutureTimeout as error:
                raise Transient(f"Pub/Sub confirmed nothing within {PUBLISH_S_MAX:.0f} s") from error

    def _acknowledge(self, ack_ids: Sequence[str], lease: _Lease) -> None:
        try:
            self._clients.subscription.acknowledge(ack_ids)
        except Transient as error:
            # What is done stays done: the messages come again and are found to be duplicates.
            self._progress.trouble(self._name, "Pub/Sub", str(error))
            log.warning("%d messages were applied but not acknowledged: %s", len(ack_ids), error)
        lease.held.difference_update(ack_ids)
        self._progress.finished(self._name, len(ack_ids))

    def _postpone(self, effect: Postpone, lease: _Lease) -> None:
        log.warning(
            "%d writes outside their primary cannot be undone while it is unreachable; again in %d s",
            len(effect.ack_ids),
            effect.seconds,
        )
        try:
            self._clients.subscription.extend(effect.ack_ids, effect.seconds)
        except Transient as error:
            log.warning("cannot postpone %d messages; their deadline does it: %s", len(effect.ack_ids), error)
        lease.held.difference_update(effect.ack_ids)
        self._progress.finished(self._name, len(effect.ack_ids))

    def _pause(self, effect: Pause, lease: _Lease) -> None:
        if self._stop.is_set():
            raise Stopping
        longest = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(effect.attempt, 10))
        seconds = random.uniform(longest / 2, longest)  # noqa: S311  jitter, not a secret
        # What cannot be reached is the journal's to tell, once for all pullers.
        hot = effect.attempt in (10, 30) or effect.attempt % 60 == 0
        level = logging.WARNING if hot and not self._progress.troubled(self._name) else logging.DEBUG
        log.log(level, "holding %d messages, attempt %d: %s", len(lease.held), effect.attempt, effect.cause)
        self._clients.telemetry.count("firefleet.retries", target=self._target.replica.id)
        if self._stop.wait(seconds):
            raise Stopping

    def _keep(self, lease: _Lease) -> None:
        """Show that the loop moves, and keep the held messages from being delivered to others."""
        self._progress.beat(self._name)
        now = time.monotonic()
        if now - lease.renewed > LEASE_RENEW_S and lease.held:
            lease.renewed = now
            try:
                self._clients.subscription.extend(sorted(lease.held), LEASE_S)
            except Transient as error:
                log.warning("cannot extend the deadline of %d messages: %s", len(lease.held), error)

    def _release(self, held: set[str]) -> None:
        if not held:
            return
        try:
            self._clients.subscription.extend(sorted(held), 0)
        except Transient as error:
            log.warning("%d messages are not released; their deadline does it: %s", len(held), error)


def age_s(published_us: int) -> float:
    """How long ago a message was published, in seconds."""
    return max(0.0, time.time_ns() / 1000 / MICROS - published_us / MICROS)

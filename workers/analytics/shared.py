"""What the threads of one analytics worker share: clients, the buffer under its lock, how messages end.

Every message ends in exactly one way, and is counted there: written, duplicate, throttled, dead-lettered, or
released to be received again. So `received` is the sum of the others once a worker has stopped.
"""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import TypeVar

from replication.analytics.anonymise import Anonymiser
from replication.analytics.buffer import Buffer
from replication.analytics.leases import Leases
from replication.analytics.schema import Schema
from replication.changes.dead_letters import dead_letter
from replication.configuration.analytics import Analytics
from replication.errors import EventError, FirefleetError, Refused, Transient
from replication.ports import Database, Message, Publisher, Received, Subscription, Telemetry
from workers.journal import Journal
from workers.replicate.driver import BACKOFF_S_MAX, BACKOFF_S_MIN, Stopping, StopSignal
from workers.runtime.progress import Progress

T = TypeVar("T")

log = logging.getLogger(__name__)

PUBLISH_S_MAX = 20.0
_TOLD = ("written", "duplicate", "throttled", "dead_lettered", "released")
"""The counts that the log's line a minute names."""
BUFFER = "buffer"
"""The name under which `Progress` knows what is held."""
FLUSHER, WRITER = "flusher", "writer"
"""The thread that flushes, and what the names of those begin with that write for it."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The ports of one worker; `warehouse` is None where no anonymised copy is wanted."""

    database: Database
    subscription: Subscription
    dead_letters: Publisher
    warehouse: Publisher | None
    telemetry: Telemetry


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker is to do. `token` is its own among all workers there ever were."""

    replica: str
    settings: Analytics
    schema: Schema
    anonymiser: Anonymiser | None
    token: str


class Shared:
    """One worker's state. `now` is in monotonic seconds; `wait` sleeps, but not past the signal to stop."""

    def __init__(
        self,
        job: Job,
        clients: Clients,
        stop: StopSignal,
        *,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.job = job
        self.clients = clients
        self.stop = stop
        self.now = now
        self.progress = Progress(now, Journal(now, unit="events", always=("written", "dead_lettered")))
        self.changed = threading.Condition()
        """Guards `buffer` and `leases`; notified when either changes."""
        self.buffer = Buffer(job.settings, now=now())
        self.leases = Leases(deadline_s=job.settings.ack_deadline_s)
        self._wait = wait or stop.wait

    def count(self, name: str, amounts: Counter[str], /, **labels: str) -> None:
        """Add to `firefleet.analytics.{name}`, by event type."""
        for event_type, amount in amounts.items():
            self.clients.telemetry.count(
                f"firefleet.analytics.{name}", amount, type=event_type, target=self.job.replica, **labels
            )
        if name in _TOLD:
            self.progress.journal.record({name: amounts.total()})

    def within(self, seconds: float) -> float:
        """A deadline for a call: `seconds`, or what a stopping worker has left. Raises `Stopping`."""
        left = min(seconds, self.stop.left)
        if left <= 0:
            raise Stopping
        return left

    def reach(self, what: str, call: Callable[[], T]) -> T:
        """Make a call, and remember whether its other end could be reached."""
        try:
            answer = call()
        except Transient as error:
            self.progress.trouble(self.job.replica, what, str(error))
            raise
        except FirefleetError:
            # It was reached, and has answered.
            self.progress.trouble(self.job.replica, what, None)
            raise
        self.progress.trouble(self.job.replica, what, None)
        return answer

    def pause(self, attempt: int, cause: Exception) -> None:
        """Wait before attempt `attempt` + 1, longer each time; raises `Stopping` if the worker is to stop."""
        longest = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(attempt, 10))
        # What cannot be reached is the journal's to tell, once for all threads.
        hot = attempt in (10, 30) or attempt % 60 == 0
        level = logging.WARNING if hot and not self.progress.troubled(self.job.replica) else logging.DEBUG
        log.log(level, "holding %d messages, attempt %d: %s", self.buffer.depth, attempt, cause)
        self.clients.telemetry.count("firefleet.analytics.retries", target=self.job.replica)
        if self._wait(random.uniform(longest / 2, longest)):  # noqa: S311  jitter, not a secret
            raise Stopping from cause

    def beat(self) -> None:
        """Show that this thread moves; one that writes moves for the flusher, and may idle for long."""
        name = threading.current_thread().name
        self.progress.beat(FLUSHER if name.startswith(WRITER) else name)

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Say that these are done; if that fails they come again and are found to be duplicates."""
        if not ack_ids:
            return
        try:
            self.reach("Pub/Sub", lambda: self.clients.subscription.acknowledge(ack_ids))
        except Transient as error:
            log.warning("%d messages are done but not acknowledged: %s", len(ack_ids), error)
        with self.changed:
            self.leases.drop(ack_ids)

    def release(self, ack_ids: Sequence[str]) -> None:
        """Let these be delivered again at once, or when their deadline has passed."""
        if not ack_ids:
            return
        with self.changed:
            self.leases.drop(ack_ids)
        self.count("released", Counter({"any": len(ack_ids)}))
        try:
            self.clients.subscription.extend(ack_ids, 0)
        except Transient as error:
            log.warning("%d messages are not released; their deadline does it: %s", len(ack_ids), error)

    def extend(self) -> None:
        """Keep what is held from being delivered to others."""
        with self.changed:
            due = self.leases.due(now=self.now())
        if not due:
            return
        try:
            self.clients.subscription.extend(due, self.job.settings.ack_deadline_s)
        except Transient as error:
            log.warning("cannot extend the deadline of %d messages: %s", len(due), error)

    def publish(self, publisher: Publisher, messages: Sequence[Message]) -> list[Exception | None]:
        """Publish these; for each None once Pub/Sub has it, else why not."""
        deadline = time.monotonic() + self.within(PUBLISH_S_MAX)
        futures: list[Future[str]] = [publisher.submit(message) for message in messages]
        return [_outcome(future, deadline) for future in futures]

    def bury(self, rejected: Iterable[tuple[Received, EventError]]) -> None:
        """Publish messages to the dead-letter topic, then acknowledge them; release those that cannot go."""
        left = list(rejected)
        with self.changed:
            self.leases.add((received.ack_id for received, _ in left), now=self.now())
        attempt = 0
        try:
            while left:
                failed, left = self._bury(left)
                if left:
                    attempt += 1
                    self.beat()
                    self.pause(attempt, failed)
        except Stopping:
            self.release([received.ack_id for received, _ in left])

    def _bury(
        self, rejected: list[tuple[Received, EventError]]
    ) -> tuple[Exception, list[tuple[Received, EventError]]]:
        """Try once; the last failure and what may be tried again."""
        letters = [dead_letter(received, error, self.job.replica) for received, error in rejected]
        outcomes = self.publish(self.clients.dead_letters, letters)
        failure: Exception = Transient("")
        again, buried, refused = [], [], []
        for one, outcome in zip(rejected, outcomes, strict=True):
            match outcome:
                case None:
                    buried.append(one)
                case Refused():
                    log.error("the dead-letter topic refuses message %s: %s", one[0].id, outcome)
                    refused.append(one[0].ack_id)
                case _:
                    failure = outcome
                    again.append(one)
        self._count_buried(buried)
        self.acknowledge([received.ack_id for received, _ in buried])
        self.release(refused)
        return failure, again

    def _count_buried(self, buried: Sequence[tuple[Received, EventError]]) -> None:
        found: Counter[tuple[str, str]] = Counter()
        for received, error in buried:
            found[error.reason.value, self.job.schema.type_of(received.message)] += 1
        for (reason, event_type), amount in found.items():
            self.count("dead_lettered", Counter({event_type: amount}), reason=reason)
        if buried:
            # One line for all: an application that sends nothing but wrong events must not fill the log too.
            received, error = buried[0]
            log.warning(
                "%d events went to the dead-letter topic; one of them, message %s: %s",
                len(buried),
                received.id,
                error,
                extra={"event": received.id, "reason": error.reason.value},
            )


def _outcome(future: "Future[str]", deadline: float) -> Exception | None:
    try:
        future.result(timeout=max(0.0, deadline - time.monotonic()))
    except FutureTimeout:
        return Transient(f"Pub/Sub did not confirm a message within {PUBLISH_S_MAX:.0f} s")
    except (Transient, Refused) as error:
        return error
    return None

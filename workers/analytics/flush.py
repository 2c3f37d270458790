"""Writes what the buffer holds: documents, then the warehouse's copies, then acknowledgements.

Each step is idempotent and the order is fixed, so a crash between any two repeats from the start: a document's
name follows from its events, and a copy that is published twice has the same key. A write whose outcome is
unknown is tried again; if its document is there then, the flush's own name in it tells whether it is ours.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from replication.analytics.buffer import Held
from replication.analytics.packing import BATCH, Output, Unit, pack, single
from replication.apply.store import REQUEST_DOCUMENTS_MAX, Status, chunks
from replication.errors import EventError, Reason, Refused, Transient
from replication.ports import Written
from workers.analytics.shared import BUFFER, Shared
from workers.replicate.driver import Stopping

log = logging.getLogger(__name__)

WRITE_S_MAX = 5.0
READ_S_MAX = 5.0

Spread = Callable[[Callable[[list[Unit]], None], Iterable[list[Unit]]], Iterable[None]]
"""Like `map`; an executor's runs several requests at once."""


class Flusher:
    """Flushes one worker's buffer; one flush at a time."""

    def __init__(self, shared: Shared, *, spread: Spread = map) -> None:
        self._shared = shared
        self._spread = spread
        self._flushes = 0

    def flush(self) -> None:
        """Store all that waits. Returns when each message is settled, or released as the worker stops."""
        shared = self._shared
        with shared.changed:
            held = shared.buffer.take(shared.now())
        if not held:
            return
        began = shared.now()
        self._flushes += 1
        output = Output(
            prefix=shared.clients.database.prefix,
            collection=shared.job.settings.collection,
            types=shared.job.settings.types,
            batch=f"{shared.job.token}-{self._flushes}",
        )
        units, rejected = self._units(held, output)
        for _ in self._spread(
            lambda chunk: _Chunk(shared, output).store(chunk), chunks(units, REQUEST_DOCUMENTS_MAX)
        ):
            shared.beat()
        reject(shared, rejected)
        telemetry, target = shared.clients.telemetry, shared.job.replica
        telemetry.measure("firefleet.analytics.flush.duration", shared.now() - began, target=target)
        telemetry.measure("firefleet.analytics.flush.size", len(held), target=target)

    def _units(
        self, held: Sequence[Held], output: Output
    ) -> tuple[Iterable[Unit], list[tuple[Held, EventError]]]:
        if self._shared.job.settings.layout == "packed":
            return pack(held, output), []
        units, rejected = [], []
        for one in held:
            try:
                units.append(single(one, output))
            except EventError as error:
                rejected.append((one, error))
        return units, rejected


def reject(shared: Shared, rejected: Sequence[tuple[Held, EventError]]) -> None:
    """Dead-letter events that can never be stored; their copies are released and tried by themselves."""
    with shared.changed:
        copies = [ack_id for held, _ in rejected for ack_id in shared.buffer.refused(held)]
        shared.changed.notify_all()
    shared.release(copies)
    shared.bury([(held.received, error) for held, error in rejected])
    finished(shared, len(rejected) + len(copies))


def finished(shared: Shared, messages: int) -> None:
    """So many messages are settled: what the health check wants to see."""
    if messages:
        shared.progress.finished(BUFFER, messages)


class _Chunk:
    """One request's documents on their way into the database, until each is settled."""

    def __init__(self, shared: Shared, output: Output) -> None:
        self._shared = shared
        self._output = output
        self._waiting: dict[str, Unit] = {}
        self._unsure: set[str] = set()

    def store(self, units: Sequence[Unit]) -> None:
        """Write them all, however long it takes; release what is left when the worker stops."""
        self._waiting = {unit.path: unit for unit in units}
        try:
            self._store()
        except Stopping:
            log.info("stopping: %d documents are not written, their events are released", len(self._waiting))
        except Exception:
            log.exception("writing %d documents failed; their events are released", len(self._waiting))
            self._shared.clients.telemetry.count("firefleet.failures", target=self._shared.job.replica)
        finally:
            self._release()

    def _store(self) -> None:
        attempt = 0
        while self._waiting:
            self._shared.beat()
            try:
                for units, outcomes in self._write(list(self._waiting.values())):
                    self._record(units, outcomes)
                failure = Transient("the database cannot take some of the documents now")
            except Transient as error:
                # Whatever had no answer yet may have landed.
                self._unsure.update(self._waiting)
                failure = error
            if self._waiting:
                attempt += 1
                self._shared.pause(attempt, failure)

    def _write(self, units: list[Unit]) -> Iterator[tuple[list[Unit], list[Written]]]:
        """Write, halving what the database refuses as a whole until the document at fault stands alone."""
        database = self._shared.clients.database
        writes = [unit.write for unit in units]
        timeout = self._shared.within(WRITE_S_MAX)
        try:
            outcomes = self._shared.reach("Firestore", lambda: database.batch_write(writes, timeout=timeout))
        except Refused as error:
            if len(units) == 1:
                yield units, [Written(Status.INVALID_ARGUMENT, 0, str(error))]
                return
            middle = len(units) // 2
            yield from self._write(units[:middle])
            yield from self._write(units[middle:])
        else:
            yield units, outcomes

    def _record(self, units: list[Unit], outcomes: list[Written]) -> None:
        written: list[Unit] = []
        there: list[Unit] = []
        for unit, outcome in zip(units, outcomes, strict=True):
            match outcome.code:
                case Status.OK:
                    written.append(unit)
                case Status.ALREADY_EXISTS:
                    there.append(unit)
                case Status.INVALID_ARGUMENT:
                    self._refuse(unit, outcome.text)
                case _:
                    self._unsure.add(unit.path)
        ours = self._ours([unit.path for unit in there if unit.path in self._unsure])
        written += [unit for unit in there if unit.path in ours]
        self._settle(written, [unit for unit in there if unit.path not in ours])

    def _ours(self, paths: list[str]) -> set[str]:
        """Which of these documents an earlier try of this very flush has written."""
        if not paths:
            return set()
        database, timeout = self._shared.clients.database, self._shared.within(READ_S_MAX)
        found = self._shared.reach("Firestore", lambda: database.read(paths, timeout=timeout))
        return {
            one.path
            for one in found
            if one.document is not None and one.document.fields[BATCH].string_value == self._output.batch
        }

    def _refuse(self, unit: Unit, text: str) -> None:
        del self._waiting[unit.path]
        if len(unit.members) == 1:
            error = EventError(Reason.INVALID, f"the database refuses the event: {text}")
            reject(self._shared, [(unit.members[0], error)])
            return
        middle = len(unit.members) // 2
        for half in (unit.members[:middle], unit.members[middle:]):
            self._waiting.update((smaller.path, smaller) for smaller in pack(half, self._output))

    def _settle(self, written: list[Unit], there: list[Unit]) -> None:
        """These are durable, by this flush or by an earlier one: pass them on, then acknowledge."""
        settled = written + there
        held = [one for unit in settled for one in unit.members]
        self._pass_on(held)
        duplicates = Counter(one.event.type for unit in there for one in unit.members)
        shared = self._shared
        ack_ids: list[str] = []
        with shared.changed:
            for one in held:
                done = shared.buffer.stored(one)
                ack_ids += done
                duplicates[one.event.type] += len(done) - 1
            shared.changed.notify_all()
        for unit in settled:
            del self._waiting[unit.path]
        shared.acknowledge(ack_ids)
        finished(shared, len(ack_ids))
        self._count(written, there, duplicates, messages=len(ack_ids))

    def _count(
        self, written: list[Unit], there: list[Unit], duplicates: Counter[str], *, messages: int
    ) -> None:
        shared = self._shared
        shared.count("written", Counter(one.event.type for unit in written for one in unit.members))
        shared.count("duplicate", +duplicates)
        telemetry, target = shared.clients.telemetry, shared.job.replica
        documents = len(written) + len(there)
        if documents:
            telemetry.count("firefleet.analytics.writes", documents, target=target)
        # Against one write for each message.
        shared.count("writes_saved", +Counter({"any": messages - documents}))

    def _pass_on(self, held: Sequence[Held]) -> None:
        """Publish the warehouse's copies, trying until Pub/Sub has them all."""
        anonymiser, publisher = self._shared.job.anonymiser, self._shared.clients.warehouse
        if anonymiser is None or publisher is None:
            return
        messages: list[Any] = [anonymiser.copy(one) for one in held]
        attempt = 0
        while messages:
            outcomes = self._shared.publish(publisher, messages)
            for outcome in outcomes:
                if isinstance(outcome, Refused):
                    log.error("the warehouse's topic refuses a copy, which is left out: %s", outcome)
                    self._shared.count("warehouse_refused", Counter({"any": 1}))
            failed = [
                (message, outcome)
                for message, outcome in zip(messages, outcomes, strict=True)
                if isinstance(outcome, Transient)
            ]
            messages = [message for message, _ in failed]
            if failed:
                attempt += 1
                self._shared.beat()
                self._shared.pause(attempt, failed[0][1] or Transient(""))

    def _release(self) -> None:
        shared = self._shared
        with shared.changed:
            ack_ids = [
                ack_id
                for unit in self._waiting.values()
                for held in unit.members
                for ack_id in shared.buffer.released(held)
            ]
            shared.changed.notify_all()
        shared.release(ack_ids)
        finished(shared, len(ack_ids))
        self._waiting.clear()

"""Write a small document at each source, wait for it at each target, and delete it again.

    round: write at every source ─> read at every target until it is there ─> lag = its commit there − here

One document a source for all rounds, updated each time: a delete leaves a tombstone, and a probe that runs for
days must not leave thousands. Its path is this process's own, so that two probes do not disturb each other. It
is deleted at the source only: the delete is a change like any other, and reaches whoever got the document.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from replication.documents.wire import Write
from replication.errors import FirefleetError
from replication.fleet.model import Fleet
from replication.ports import Database, Found
from replication.probe import Cause, Evidence, Missing, Pair, missing

CALL_S = 10.0
POLL_S_MIN = 0.1
POLL_S_MAX = 1.0
"""Each poll is billed reads. Lags do not depend on it: they are taken from the databases' own commit times."""
DELETE_S_MAX = 10.0
"""For the deletes to arrive; later ones need no one to wait for them."""
NOTE = "written by `firefleet probe`, which deletes it; it may be deleted at any time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round found. `lags_us` has the pairs that worked, `missing` the others."""

    lags_us: Mapping[Pair, int]
    missing: Mapping[Pair, Missing]

    @property
    def ok(self) -> bool:
        """Whether every change arrived."""
        return not self.missing


@dataclass(slots=True)
class _Seen:
    """What the threads of one round have found so far."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    lags_us: dict[Pair, int] = field(default_factory=dict)
    unwritten: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


class Probe:
    """Probes one fleet, round after round. `run` makes the documents' paths its own.

    `databases` by replica id, for every replica of `wanted`. `stop` ends all waiting.
    """

    def __init__(
        self,
        fleet: Fleet,
        databases: Mapping[str, Database],
        wanted: Sequence[Pair],
        *,
        collection: str,
        run: str,
        stop: threading.Event,
    ) -> None:
        self._fleet = fleet
        self._databases = databases
        self._wanted = wanted
        self._sources = tuple(dict.fromkeys(source for source, _ in wanted))
        self._targets = tuple(dict.fromkeys(target for _, target in wanted))
        self.paths: Mapping[str, str] = {source: f"{collection}/{source}-{run}" for source in self._sources}
        """The document of each source."""
        self._stop = stop
        self._number = 0
        self._written: set[str] = set()
        self._arrived: set[Pair] = set()

    def round(self, *, timeout: float) -> Round:
        """Write at every source and wait up to `timeout` seconds for all arrivals."""
        self._number += 1
        seen = _Seen()
        with ThreadPoolExecutor(len(self._fleet.replicas), thread_name_prefix="probe") as pool:
            committed = {
                source: time_us
                for source, time_us in zip(
                    self._sources, pool.map(lambda each: self._write(each, seen), self._sources), strict=True
                )
                if time_us is not None
            }
            deadline = time.monotonic() + timeout
            list(pool.map(lambda target: self._await(target, committed, deadline, seen), self._targets))
        self._arrived |= seen.lags_us.keys()
        evidence = Evidence(lags_us=seen.lags_us, unwritten=seen.unwritten, unread=seen.unread)
        found = missing(self._fleet, self._wanted, evidence)
        unclear = {end for pair, each in found.items() if each.cause is Cause.EITHER for end in pair}
        if unclear & committed.keys():
            recorded = self._recorded(unclear & committed.keys(), timeout=timeout)
            found = missing(self._fleet, self._wanted, replace(evidence, recorded=recorded))
        return Round(lags_us=seen.lags_us, missing=found)

    def clean(self) -> dict[str, str]:
        """Delete the documents at their sources and wait for it elsewhere; what failed, by replica."""
        failures: dict[str, str] = {}
        for source in sorted(self._written):
            try:
                self._databases[source].commit([self._delete(source)], timeout=CALL_S)
            except FirefleetError as error:
                failures[source] = f"{self.paths[source]} is left at {source}: {error}"
        gone = self._written - failures.keys()
        deadline = time.monotonic() + DELETE_S_MAX
        for target in self._targets:
            # Only where it has arrived: elsewhere there is nothing to delete, or no way to get there.
            paths = [self.paths[source] for source in sorted(gone) if (source, target) in self._arrived]
            self._poll(target, paths, deadline, lambda found: [one.path for one in found if one.document])
        return failures

    def _recorded(self, sources: Iterable[str], *, timeout: float) -> frozenset[str]:
        """The sources whose own worker records a delete of the probe's document, within `timeout` seconds.

        A delete is sent to its own replica too, which keeps a tombstone: a change's whole way in one database.
        """
        deleted: dict[str, int] = {}
        for source in sorted(sources):
            try:
                deleted[source] = self._databases[source].commit([self._delete(source)], timeout=CALL_S)
            except FirefleetError:
                continue  # then no more is known of this one; `clean` tries again and reports
            self._written.discard(source)
        deadline = time.monotonic() + timeout

        def records(source: str) -> bool:
            tombstone = self._fleet.codec.tombstone_path(self.paths[source])

            def look(found: Sequence[Found]) -> list[str]:
                # An earlier round may have left one.
                return [one.path for one in found if one.update_time <= deleted[source]]

            return not self._poll(source, [tombstone], deadline, look).waiting

        with ThreadPoolExecutor(len(self._fleet.replicas), thread_name_prefix="probe") as pool:
            return frozenset(
                source for source, found in zip(deleted, pool.map(records, deleted), strict=True) if found
            )

    def _write(self, source: str, seen: _Seen) -> int | None:
        """Commit this round's change at a source; its time in microseconds."""
        write = Write()
        write.update.name = self._databases[source].prefix + self.paths[source]
        write.update.fields["round"].integer_value = self._number
        write.update.fields["note"].string_value = NOTE
        # A masked update keeps `_repl`: the replica's version goes on from what it was.
        write.update_mask.field_paths.extend(["round", "note"])
        self._written.add(source)
        try:
            return self._databases[source].commit([write], timeout=CALL_S)
        except FirefleetError as error:
            with seen.lock:
                seen.unwritten[source] = str(error)
            return None

    def _delete(self, source: str) -> Any:
        write = Write()
        write.delete = self._databases[source].prefix + self.paths[source]
        return write

    def _await(self, target: str, committed: Mapping[str, int], deadline: float, seen: _Seen) -> None:
        """Read at a target until all that is wanted of it is there, or time is up."""
        sources = {
            self.paths[source]: source for source, to in self._wanted if to == target and source in committed
        }

        def look(found: Sequence[Found]) -> list[str]:
            waiting = []
            for one in found:
                if one.document is None or one.document.fields["round"].integer_value < self._number:
                    waiting.append(one.path)
                    continue
                source = sources[one.path]
                with seen.lock:
                    seen.lags_us[source, target] = max(0, one.update_time - committed[source])
            return waiting

        polled = self._poll(target, list(sources), deadline, look)
        if polled.problem is not None:
            with seen.lock:
                seen.unread[target] = polled.problem

    def _poll(
        self,
        replica: str,
        paths: list[str],
        deadline: float,
        look: Callable[[Sequence[Found]], list[str]],
    ) -> "_Polled":
        """Read `paths` until `look` says that none is left to wait for, or time is up."""
        problem, pause = None, POLL_S_MIN
        while paths:
            left = deadline - time.monotonic()
            try:
                found = self._databases[replica].read(paths, timeout=min(CALL_S, max(1.0, left)))
                paths, problem = look(found), None
            except FirefleetError as error:
                problem = str(error)
            if not paths or left <= 0 or self._stop.wait(min(pause, left)):
                break
            pause = min(POLL_S_MAX, pause * 1.5)
        return _Polled(tuple(paths), problem)


class _Polled(NamedTuple):
    """The paths that are still waited for, and the error of the last read if it failed."""

    waiting: tuple[str, ...]
    problem: str | None

"""The core alone: decode, decide, build the writes. One thread, no network, no clients.

Timed by the thread's own CPU clock and only inside the core, so that neither the answers made up for it nor a
busy machine count.
"""

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from replication.apply.batch import apply
from replication.apply.effects import Effect
from replication.documents.wire import Document, set_micros
from replication.effects import (
    Acknowledge,
    BatchWrite,
    Commit,
    Observe,
    Pause,
    Postpone,
    Publish,
    Read,
    Reading,
)
from replication.fleet.model import Fleet, Target
from replication.ports import Found, Received, Written
from tests.bench.workload import TARGET, Workload

BATCH = 100
"""What one Pull of the emulator gives."""


def measure(fleet: Fleet, workload: Workload, *, now: int) -> float:
    """Documents a second through the core, batch by batch, for a workload built at `now` (µs)."""
    held = _held(fleet, workload, now)
    received = [Received(message, str(number), str(number)) for number, message in enumerate(workload.messages)]
    target = Target(fleet, fleet.replica(TARGET))
    gc.collect()
    gc.freeze()
    spent = 0.0
    for start in range(0, len(received), BATCH):
        answers = _Answers(held, now)
        spent += _drive(received[start : start + BATCH], target, answers)
        if len(answers.acknowledged) != len(received[start : start + BATCH]):
            raise AssertionError(f"{len(answers.acknowledged)} of a batch were applied")
    gc.unfreeze()
    return len(received) / spent


def _drive(batch: Sequence[Received], target: Target, answers: Callable[[Effect], Any]) -> float:
    """Apply a batch; the CPU seconds spent between the effects."""
    steps = apply(batch, target)
    answer, spent = None, 0.0
    clock = time.thread_time
    while True:
        began = clock()
        try:
            effect = steps.send(answer)
        except StopIteration:
            return spent + clock() - began
        spent += clock() - began
        answer = answers(effect)


class _Answers:
    """Answers effects as a database would that holds these documents, and in which every write succeeds."""

    def __init__(self, held: dict[str, bytes], now: int) -> None:
        self._held = held
        self._now = now
        self.acknowledged: list[str] = []

    def __call__(self, effect: Effect) -> Any:
        match effect:
            case Read():
                return Reading([self._found(path) for path in effect.paths], 0.0)
            case BatchWrite():
                return [Written(0, self._now) for _ in effect.writes]
            case Commit():
                return self._now
            case Acknowledge():
                self.acknowledged.extend(effect.ack_ids)
                return None
            case Observe() | Publish():
                return None
            case Pause() | Postpone():
                raise AssertionError(f"nothing here fails, but the core asks for {effect}")
            case _:
                assert_never(effect)

    def _found(self, path: str) -> Found:
        held = self._held.get(path)
        if held is None:
            return Found(path, None, 0, self._now)
        return Found(path, Document.FromString(held), self._now, self._now)


def _held(fleet: Fleet, workload: Workload, now: int) -> dict[str, bytes]:
    prefix = fleet.replica(TARGET).prefix
    held = {}
    for write in workload.seeds:
        document = Document.FromString(write.update.SerializeToString())
        set_micros(document.update_time, now)
        held[document.name.removeprefix(prefix)] = document.SerializeToString()
    return held

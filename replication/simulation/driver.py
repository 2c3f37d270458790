"""Drive `replication.apply.batch.apply` on databases in memory, one effect at a time.

What `workers.replicate.driver` does with real clients and threads. Between two effects anything may happen:
another worker's step, an application's write, a crash.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from replication.adapters.memory import MemoryDatabase
from replication.apply.batch import apply
from replication.apply.effects import Effect, Observation, Steps
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
)
from replication.errors import ConditionFailed, Refused, Transient
from replication.fleet.model import Target
from replication.ports import Received
from replication.simulation.faults import Faults


class Driver:
    """Applies one batch after another at `target`. Override a method to change or watch an effect."""

    def __init__(self, target: Target, databases: Mapping[str, MemoryDatabase], faults: Faults) -> None:
        self.target = target
        self.databases = databases
        self.faults = faults
        self._steps: Steps | None = None
        self._answer: Any = None
        self._error: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether a batch is under way."""
        return self._steps is not None

    def begin(self, batch: Sequence[Received]) -> None:
        """Take a batch on. The target may differ from the last batch's."""
        self._steps = apply(batch, self.target)

    def step(self) -> bool:
        """Perform the batch's next effect; False when none is left."""
        if self._steps is None:
            return False
        answer, error = self._answer, self._error
        self._answer = self._error = None
        try:
            effect = self._steps.send(answer) if error is None else self._steps.throw(error)
        except StopIteration:
            self._steps = None
            return False
        try:
            self.faults.before(self, effect)
            answer = self.perform(effect)
            self.faults.after(self, effect)
            self._answer = answer
        except (Transient, ConditionFailed, Refused, Expired) as failure:
            self._error = failure
            self.failed(effect, failure)
        return True

    def abandon(self) -> None:
        """Forget the batch, as a process that dies does."""
        if self._steps is not None:
            self._steps.close()
        self._steps = self._answer = self._error = None

    def failed(self, effect: Effect, error: Exception) -> None:
        """Called when an effect has failed, before the core learns of it."""

    def perform(self, effect: Effect) -> Any:
        """Do what the core asks for; what it is answered."""
        match effect:
            case Read():
                return self.read(effect)
            case BatchWrite():
                return self.write(effect.writes, effect.read_at, atomic=False)
            case Commit():
                return self.write(effect.writes, effect.read_at, atomic=True)
            case Publish():
                return self.publish(effect)
            case Acknowledge():
                return self.acknowledge(effect.ack_ids)
            case Observe():
                return self.observe(effect)
            case Postpone():
                return self.postpone(effect)
            case Pause():
                return self.pause(effect)
            case _:
                assert_never(effect)

    # ── the effects ───────────────────────────────────────────────────────────────────────────────────────

    def read(self, effect: Read) -> Reading:
        """Read documents of any replica."""
        return Reading(self.databases[effect.replica].read(effect.paths, timeout=0), 0.0)

    def write(self, writes: Sequence[Any], read_at: float | None, *, atomic: bool) -> Any:
        """Write at the target: all or none if `atomic`. `read_at` is the mark of the read it rests on."""
        database = self.databases[self.target.replica.id]
        return database.commit(writes, timeout=0) if atomic else database.batch_write(writes, timeout=0)

    def publish(self, effect: Publish) -> None:
        """Publish to the topic, or to the dead letters'."""

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Say that deliveries are done."""

    def observe(self, effect: Observe[Observation]) -> None:
        """Take note of what became of messages."""

    def postpone(self, effect: Postpone) -> None:
        """Let deliveries go for a while."""

    def pause(self, effect: Pause) -> None:
        """Wait before trying again; nothing waits in a world where others move meanwhile."""

"""Drive the application of a batch on the memory backend, with faults where a test wants them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from replication.adapters.memory import MemoryDatabase
from replication.apply.batch import apply
from replication.apply.effects import Effect, Observation
from replication.apply.writes import Target
from replication.configuration.parse import Fleet
from replication.effects import Acknowledge, BatchWrite, Commit, Expired, Observe, Pause, Publish, Read, Reading
from replication.errors import ConditionFailed, Refused, Transient
from replication.ports import Message, Received

Fault = Callable[[Effect, "Bench"], None]
"""Called before an effect is performed; may raise one of the driver's errors, or write behind its back."""


@dataclass
class Bench:
    """A target's memory database and what applying did."""

    fleet: Fleet
    replica: str
    databases: Mapping[str, MemoryDatabase]
    fault: Fault = lambda effect, bench: None
    effects: list[Effect] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    published: list[Message] = field(default_factory=list)
    dead: list[Message] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)

    def run(self, *messages: Message) -> None:
        batch = [Received(message, f"m{n}", f"a{n}") for n, message in enumerate(messages)]
        self.drive(batch)

    def drive(self, batch: Sequence[Received], effects_max: int = 500) -> None:
        steps = apply(batch, Target(self.fleet, self.fleet.replica(self.replica)))
        answer, error = None, None
        for _ in range(effects_max):
            try:
                effect = steps.throw(error) if error else steps.send(answer)
            except StopIteration:
                return
            answer = error = None
            self.effects.append(effect)
            try:
                self.fault(effect, self)
                answer = self.perform(effect)
            except (Transient, ConditionFailed, Refused, Expired) as raised:
                error = raised
        raise AssertionError(f"not done after {effects_max} effects: {self.effects[-5:]}")

    def perform(self, effect: Effect) -> Any:
        database = self.databases[self.replica]
        match effect:
            case Read():
                return Reading(self.databases[effect.replica].read(effect.paths, timeout=1), 0.0)
            case BatchWrite():
                return database.batch_write(effect.writes, timeout=1)
            case Commit():
                return database.commit(effect.writes, timeout=1)
            case Publish():
                (self.dead if effect.dead_letters else self.published).extend(effect.messages)
            case Acknowledge():
                self.acknowledged.extend(effect.ack_ids)
            case Observe():
                self.observations.extend(effect.observations)
            case Pause():
                pass

    def outcomes(self) -> list[str]:
        return [str(seen.outcome) for seen in self.observations]

    def kinds(self) -> list[str]:
        return [type(effect).__name__ for effect in self.effects]

    def text(self, path: str, name: str = "x") -> str | None:
        found = self.databases[self.replica].get(path)
        return None if found is None else found.fields[name].string_value

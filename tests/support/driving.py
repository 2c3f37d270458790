"""Drive the application of a batch on the memory backend, with faults where a test wants them."""

from collections.abc import Callable, Mapping, Sequence

from replication.adapters.memory import MemoryDatabase
from replication.apply.effects import Effect, Observation
from replication.effects import Observe, Publish
from replication.fleet.model import Fleet, Target
from replication.ports import Message, Received
from replication.simulation.driver import Driver
from replication.simulation.faults import Faults

Fault = Callable[[Effect, "Bench"], None]
"""Called before an effect is performed; may raise one of the driver's errors, or write behind its back."""


class Bench(Driver):
    """A target's memory database and what applying did."""

    def __init__(
        self,
        fleet: Fleet,
        replica: str,
        databases: Mapping[str, MemoryDatabase],
        fault: Fault = lambda effect, bench: None,
    ) -> None:
        super().__init__(Target(fleet, fleet.replica(replica)), databases, _Asked())
        self.fault = fault
        self.effects: list[Effect] = []
        self.observations: list[Observation] = []
        self.published: list[Message] = []
        self.dead: list[Message] = []
        self.acknowledged: list[str] = []

    def run(self, *messages: Message) -> None:
        batch = [Received(message, f"m{n}", f"a{n}") for n, message in enumerate(messages)]
        self.drive(batch)

    def drive(self, batch: Sequence[Received], effects_max: int = 500) -> None:
        self.begin(batch)
        for _ in range(effects_max):
            if not self.step():
                return
        raise AssertionError(f"not done after {effects_max} effects: {self.effects[-5:]}")

    def publish(self, effect: Publish) -> None:
        (self.dead if effect.dead_letters else self.published).extend(effect.messages)

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        self.acknowledged.extend(ack_ids)

    def observe(self, effect: Observe[Observation]) -> None:
        self.observations.extend(effect.observations)

    def outcomes(self) -> list[str]:
        return [str(seen.outcome) for seen in self.observations]

    def kinds(self) -> list[str]:
        return [type(effect).__name__ for effect in self.effects]

    def text(self, path: str, name: str = "x") -> str | None:
        found = self.databases[self.target.replica.id].get(path)
        return None if found is None else found.fields[name].string_value


class _Asked(Faults):
    """Notes every effect, and asks the bench's fault."""

    def before(self, process: object, effect: Effect) -> None:
        assert isinstance(process, Bench)
        process.effects.append(effect)
        process.fault(effect, process)

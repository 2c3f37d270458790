"""One fleet in which a policy is tried: it goes through a history's writes and must end equal everywhere."""

from collections import Counter
from collections.abc import Mapping, Sequence

from replication.adapters.memory_pubsub import Retained
from replication.apply.effects import Effect, Observation
from replication.apply.outcomes import Conflict
from replication.documents.plain import BodyFields
from replication.documents.stored import dismantle
from replication.documents.wire import MICROS
from replication.effects import BatchWrite, Commit, Observe, Publish
from replication.errors import Transient
from replication.fleet.model import Fleet, Target
from replication.simulation.applications import PATHS, AppWrite
from replication.simulation.capture import Capture
from replication.simulation.clock import Clock
from replication.simulation.dice import Dice
from replication.simulation.driver import Driver
from replication.simulation.faults import Died, Faults
from replication.simulation.worker import Worker
from replication.simulation.world import Mover, World

MOVES_MAX = 20_000
_START_US = 1_700_000_000 * MICROS
_ROUND_US = 3_600 * MICROS
_SHOWN_CHARACTERS_MAX = 400

Bodies = Mapping[str, bytes | None]
"""What all replicas hold: path -> body, None if it does not exist."""


class Unsafe(AssertionError):
    """A policy does harm. The text says what it does, and in which history.

    `simulate(…, seed=N, histories=1)` repeats that history.
    """


class Mishaps(Faults):
    """Messages arrive in no order, some twice; workers die, and answers are lost."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice

    def before(self, process: Driver | Capture, effect: Effect) -> None:
        """Kill a worker now and then."""
        if isinstance(process, Driver) and self._dice.chance(20):
            raise Died

    def after(self, process: Driver | Capture, effect: Effect) -> None:
        """Lose the answer to a write; or capture's, so that the event comes again."""
        if isinstance(process, Capture):
            lost = isinstance(effect, Publish) and self._dice.chance(100)
        else:
            lost = isinstance(effect, BatchWrite | Commit) and self._dice.chance(50)
        if lost:
            raise Transient("the answer is lost")

    def deliver(self, ready: list[Retained]) -> list[Retained]:
        """A few of the messages, in any order."""
        return self._dice.shuffle(ready)[: 1 + self._dice.below(3)]


class Trial(World):
    """The fleet. `where` names the history in what `Unsafe` says."""

    def __init__(self, fleet: Fleet, dice: Dice, where: str) -> None:
        self.conflicts = 0
        self.where = where
        super().__init__(fleet, clock=Clock(_START_US), dice=dice, faults=Mishaps(dice))
        # Half as often as the workers, so that changes are captured late.
        self._movers: list[Mover] = [*self.workers, *[self.capture] * (len(self.workers) // 2)]

    def new_worker(self, replica: str, number: int) -> Worker:
        """A worker that reports the policy's decisions."""
        return _Worker(self, Target(self.fleet, self.fleet.replica(replica)), number=number)

    def live(self, number: int, writes: Sequence[AppWrite]) -> Bodies:
        """Let the applications write, then deliver everything; what all replicas hold in the end."""
        self.clock.advance(max(0, _START_US + number * _ROUND_US - self.clock.now))
        for write in writes:
            self.clock.advance(MICROS)
            write.perform(self.databases[write.replica])
        if not self.settle(self._movers, moves_max=MOVES_MAX):
            raise Unsafe(
                f"the replicas never stop changing ({self.where}, round {number}): "
                "each keeps answering the others with another version"
            )
        return self._bodies()

    def judge(self, conflict: Conflict) -> None:
        """Count a decision of the policy; raise `Unsafe` if it failed."""
        self.conflicts += 1
        if conflict.failure is not None:
            sides = "\n".join(f"  {shown(side.body)}" for side in conflict.sides)
            raise Unsafe(f"it fails ({self.where}): {conflict.failure}\n{sides}")

    def _bodies(self) -> Bodies:
        held = {name: self._held(name) for name in self.databases}
        for path in PATHS:
            found = Counter(bodies[path] for bodies in held.values())
            if len(found) > 1:
                texts = "\n".join(f"  {name}: {shown(bodies[path])}" for name, bodies in held.items())
                raise Unsafe(f"the replicas differ in {path} ({self.where}):\n{texts}")
        return next(iter(held.values()))

    def _held(self, name: str) -> Bodies:
        prefix, codec = self.fleet.replica(name).prefix, self.fleet.codec
        documents = {path: self.databases[name].get(path) for path in PATHS}
        return {
            path: dismantle(document, path=path, prefix=prefix, codec=codec).body if document else None
            for path, document in documents.items()
        }


class _Worker(Worker):
    _world: Trial

    def observe(self, effect: Observe[Observation]) -> None:
        for seen in effect.observations:
            if seen.conflict is not None:
                self._world.judge(seen.conflict)

    def publish(self, effect: Publish) -> None:
        if effect.dead_letters:
            error = effect.messages[0].attributes["error"]
            raise Unsafe(f"what it answers cannot be stored ({self._world.where}): {error}")
        super().publish(effect)


def shown(body: bytes | None) -> str:
    """A body as a line of a message, cut where it is long."""
    text = "no document" if body is None else repr(dict(BodyFields(body)))
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}…"

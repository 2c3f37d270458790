"""What befalls processes: crashes around every effect, databases that are down, answers that are lost."""

from typing import TYPE_CHECKING

from replication.adapters.memory_pubsub import Retained
from replication.apply.effects import Effect
from replication.effects import Read
from replication.errors import Transient
from replication.simulation.faults import Died, Faults

if TYPE_CHECKING:
    from replication.simulation import capture, driver
    from tests.simulation.world import World


class Mishaps(Faults):
    """Drawn from the dice of the step, as often as the knobs say; none but outages once the world is calm."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._crashes = world.knobs.crashes

    def before(self, process: "driver.Driver | capture.Capture", effect: Effect) -> None:
        world = self._world
        if process is world.capture:
            self._before_capture(effect)
            return
        if self._crashes and world.rate(self._crashes):
            world.sometimes(f"crash before {type(effect).__name__}")
            raise Died
        if type(effect) is Read:
            if world.unreachable(effect.replica):
                world.sometimes("database down")
                raise Transient(f"{effect.replica} is down")
            if world.rate(world.knobs.transient_reads):
                raise Transient("a read fails")

    def after(self, process: "driver.Driver | capture.Capture", effect: Effect) -> None:
        world = self._world
        if process is world.capture:
            if not isinstance(effect, Read) and world.rate(world.knobs.capture_failures // 4):
                # Published, but the answer was lost: Eventarc sends the event again.
                raise Transient("the answer is lost")
        elif self._crashes and world.rate(self._crashes):
            world.sometimes(f"crash after {type(effect).__name__}")
            raise Died

    def deliver(self, ready: list[Retained]) -> list[Retained]:
        world, dice = self._world, self._world.dice
        if len(ready) > 1:
            dice.shuffle(ready)
            if not world.calm:
                del ready[1 + dice.below(len(ready)) :]
        if ready and world.rate(world.knobs.duplicate_deliveries):
            world.sometimes("duplicate delivery")
            ready.append(ready[0])
        return ready

    def _before_capture(self, effect: Effect) -> None:
        world = self._world
        if isinstance(effect, Read):
            if world.unreachable(effect.replica):
                raise Transient(f"{effect.replica} is down")
        elif world.rate(world.knobs.capture_failures):
            raise Transient("Pub/Sub does not answer")

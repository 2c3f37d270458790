"""Capture of the simulated world: every replica's events, in no order, one step of one event a move."""

from typing import TYPE_CHECKING

from replication.adapters.memory import Change
from replication.changes.capture import CaptureSteps, capture
from replication.effects import Publish, Read
from replication.errors import Transient
from replication.fleet.model import Fleet
from replication.ports import Found, Message

if TYPE_CHECKING:
    from replication.simulation.world import World


class Delivery:
    """One delivery of one event. `steps` and `found` are set once its tombstone was read."""

    __slots__ = ("change", "found", "replica", "steps")

    def __init__(self, replica: str, change: Change) -> None:
        self.replica, self.change = replica, change
        self.steps: CaptureSteps | None = None
        self.found: Found | None = None

    def restart(self) -> None:
        """Forget what was read: the event is sent again."""
        self.steps = self.found = None


class Capture:
    """Takes the events of all replicas. `fleet` is its own configuration; the workers' may differ."""

    def __init__(self, world: "World", fleet: Fleet) -> None:
        self.fleet = fleet
        self.pending: list[Delivery] = []
        self._world = world

    def offer(self, replica: str, change: Change) -> None:
        """Take an event on; called when a database commits."""
        self.pending.append(Delivery(replica, change))

    def move(self) -> bool:
        """Read one event's tombstone, or publish it; False when there are no events."""
        pending = self.pending
        if not pending:
            return False
        at = self._world.dice.below(len(pending))
        delivery = pending[at]
        pending[at] = pending[-1]
        pending.pop()
        try:
            self._step(delivery)
        except Transient:
            delivery.restart()
            self.retry(delivery)
        return True

    def retry(self, delivery: Delivery) -> None:
        """Eventarc was not answered, and sends the event again."""
        self.pending.append(delivery)

    def read(self, delivery: Delivery, effect: Read) -> Found:
        """Read the tombstone that decides about an event."""
        self._world.faults.before(self, effect)
        [found] = self._world.databases[delivery.replica].read(effect.paths, timeout=0)
        self._world.faults.after(self, effect)
        return found

    def publish(self, delivery: Delivery, message: Message) -> None:
        """Publish what an event is to the fleet."""
        effect = Publish((message,))
        self._world.faults.before(self, effect)
        self._world.publish(message)
        self.published(delivery, message)
        self._world.faults.after(self, effect)

    def published(self, delivery: Delivery, message: Message) -> None:
        """Take note of an event that Pub/Sub has."""

    def drop(self, delivery: Delivery) -> None:
        """Take note of an event that is not published."""

    def _step(self, delivery: Delivery) -> None:
        if delivery.steps is None:
            delivery.steps = capture(delivery.change.body, delivery.change.headers, self.fleet)
        try:
            wanted = delivery.steps.send(delivery.found) if delivery.found else next(delivery.steps)
        except StopIteration as end:
            if isinstance(end.value, Message):
                self.publish(delivery, end.value)
            else:
                self.drop(delivery)
            return
        delivery.found = self.read(delivery, Read(wanted.replica, (wanted.path,)))
        self.pending.append(delivery)

"""A worker of the simulated world: pulls batches of one replica and applies them, one effect a move."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from replication.documents.wire import MICROS
from replication.effects import Postpone, Publish, Read, Reading
from replication.fleet.model import Target
from replication.ports import Received
from replication.simulation.driver import Driver
from replication.simulation.faults import Died

if TYPE_CHECKING:
    from replication.simulation.world import World

LEASE_S = 60
RENEWED_US = 20 * MICROS
"""How long a lease stands before the worker extends it."""


class Worker(Driver):
    """One puller. `target` is its own configuration; a new one counts from the next batch on."""

    def __init__(
        self, world: "World", target: Target, *, number: int = 0, batch_max: int = 5, extends: bool = True
    ) -> None:
        super().__init__(target, world.databases, world.faults)
        self.replica = target.replica
        self.name = f"worker {self.replica.id}-{number}"
        self.held: dict[str, Received] = {}
        """What it has neither acknowledged nor postponed, by acknowledgement id."""
        self._world = world
        self._subscription = world.subscriptions[self.replica.id]
        self._batch_max = batch_max
        self._extends = extends
        self._renewed = 0

    def move(self) -> bool:
        """Pull, or perform the next effect; False when there is nothing to do."""
        if self._steps is None:
            batch = self.pull()
            if batch:
                self._take(batch)
            return bool(batch)
        self._renew()
        try:
            if not self.step() and self.held:
                raise RuntimeError(f"{self.name}: its batch ended with {sorted(self.held)} still held")
        except Died:
            self.crash()
        return True

    def pull(self) -> list[Received]:
        """Messages of the replica's subscription, if any are ready."""
        return self._subscription.pull(self._batch_max, timeout=0)

    def crash(self) -> None:
        """The process dies. What it held is delivered again when its lease has run out."""
        self.abandon()
        self.held = {}

    def read(self, effect: Read) -> Reading:
        """Read documents; the mark is the world's time."""
        at = self._world.clock.now
        return Reading(self.databases[effect.replica].read(effect.paths, timeout=0), at)

    def publish(self, effect: Publish) -> None:
        """Publish to the world's topic, or keep dead letters there."""
        for message in effect.messages:
            if effect.dead_letters:
                self._world.dead_letters.append(message)
            else:
                self._world.publish(message)

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Acknowledge to the subscription."""
        self._subscription.acknowledge(ack_ids)
        for ack_id in ack_ids:
            del self.held[ack_id]

    def postpone(self, effect: Postpone) -> None:
        """Let deliveries go until the time has passed."""
        self._subscription.extend(effect.ack_ids, effect.seconds)
        for ack_id in effect.ack_ids:
            del self.held[ack_id]

    def _take(self, batch: Sequence[Received]) -> None:
        self.held = {item.ack_id: item for item in batch}
        self._renewed = self._world.clock.now
        self.begin(batch)

    def _renew(self) -> None:
        now = self._world.clock.now
        if self._extends and self.held and now - self._renewed > RENEWED_US:
            self._renewed = now
            self._subscription.extend(list(self.held), LEASE_S)

"""Capture of every replica: events come late, more than once, and again after a failure."""

from typing import TYPE_CHECKING

from replication.adapters.memory import Change
from replication.documents.wire import DocumentEventData, micros
from replication.effects import Read
from replication.fleet.model import Fleet
from replication.ports import Found, Message
from replication.simulation import capture
from replication.simulation.capture import Delivery

if TYPE_CHECKING:
    from tests.simulation.world import World


class Capture(capture.Capture):
    """Takes events of all replicas, one move of one event at a time."""

    _world: "World"

    def __init__(self, world: "World", fleet: Fleet) -> None:
        super().__init__(world, fleet)
        self._late: list[Delivery] = []
        self._conflict_log = f"{fleet.codec.conflicts}/"
        self._tombstones = f"{fleet.codec.tombstones}/"

    def offer(self, replica: str, change: Change) -> None:
        """Eventarc has an event; some come minutes later."""
        world = self._world
        if change.headers["ce-document"].startswith(self._conflict_log) and not world.dice.chance(50):
            return  # always dropped by its path alone, and most events are of it: a few are enough
        if world.rate(world.knobs.late_captures):
            self._late.append(Delivery(replica, change))
            return
        super().offer(replica, change)
        if world.rate(world.knobs.duplicate_events):
            super().offer(replica, change)
            world.sometimes("duplicate event")

    def release(self) -> None:
        """Let what was delayed come now."""
        if self._late:
            self._world.sometimes("late capture")
        self.pending += self._late
        self._late.clear()

    def lose(self, replica: str) -> None:
        """A replica is dead, and its events with it."""
        self.pending = [delivery for delivery in self.pending if delivery.replica != replica]
        self._late = [delivery for delivery in self._late if delivery.replica != replica]

    def retry(self, delivery: Delivery) -> None:
        world = self._world
        world.sometimes("capture retried")
        if world.calm:
            # Only a dead replica still fails: Eventarc gives up after a day.
            self.lose(delivery.replica)
        else:
            super().retry(delivery)

    def read(self, delivery: Delivery, effect: Read) -> Found:
        found = super().read(delivery, effect)
        self._world.sometimes("tombstone read by capture")
        return found

    def published(self, delivery: Delivery, message: Message) -> None:
        world, kind = self._world, message.attributes["kind"]
        self._captured(delivery)
        world.sometimes(f"captured: {kind}")
        if message.attributes.get("heal"):
            world.sometimes(f"heal: {kind}")

    def drop(self, delivery: Delivery) -> None:
        self._captured(delivery)

    def _captured(self, delivery: Delivery) -> None:
        """Write down which write others now hear of: the event's own, or the one that a merge kept."""
        if not self._world.knobs.dead:
            return  # only of a replica that dies does it matter which of its writes were captured
        data = DocumentEventData.FromString(delivery.change.body)
        facts, field = self._world.facts, self._world.fleet.codec.field
        document = data.value if data.HasField("value") else data.old_value
        path = delivery.change.headers["ce-document"]
        if path.startswith(self._tombstones):
            path = document.fields["path"].string_value
        dot = micros(document.update_time) + (not data.HasField("value"))
        names = [(delivery.replica, path, dot)]
        if data.HasField("value") and field in document.fields:
            meta = document.fields[field].map_value.fields
            if "origin" in meta and "dot" in meta:
                names.append((meta["origin"].string_value, path, meta["dot"].integer_value))
        self._world.history.captured.update(facts.by_dot[name] for name in names if name in facts.by_dot)

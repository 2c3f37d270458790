"""Capture of every replica: events come in no order, late, more than once, and again after a failure."""

from typing import TYPE_CHECKING

from replication.adapters.memory import Change
from replication.changes.capture import Dropped, capture
from replication.documents.wire import DocumentEventData, micros
from replication.ports import Message

if TYPE_CHECKING:
    from tests.simulation.world import World


class _Task:
    """One delivery of one event; `result` is what it is to the fleet, once its tombstone was read."""

    __slots__ = ("body", "headers", "replica", "result")

    def __init__(self, replica: str, body: bytes, headers: dict[str, str]) -> None:
        self.replica, self.body, self.headers = replica, body, headers
        self.result: Message | Dropped | None = None


class Capture:
    """Takes events of all replicas, one move of one event at a time."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.pending: list[_Task] = []
        self._late: list[_Task] = []
        self._conflict_log = f"{world.fleet.codec.conflicts}/"
        self._tombstones = f"{world.fleet.codec.tombstones}/"

    def offer(self, replica: str, change: Change) -> None:
        """Eventarc has an event; some come minutes later."""
        world = self._world
        if change.headers["ce-document"].startswith(self._conflict_log) and not world.dice.chance(50):
            return  # always dropped by its path alone, and most events are of it: a few are enough
        task = _Task(replica, change.body, change.headers)
        if world.rate(world.knobs.late_captures):
            self._late.append(task)
            return
        self.pending.append(task)
        if world.rate(world.knobs.duplicate_events):
            self.pending.append(_Task(replica, change.body, change.headers))
            world.sometimes("duplicate event")

    def release(self) -> None:
        """Let what was held back come now."""
        if self._late:
            self._world.sometimes("late capture")
        self.pending += self._late
        self._late.clear()

    def lose(self, replica: str) -> None:
        """A replica is dead for ever, and its events with it."""
        self.pending = [task for task in self.pending if task.replica != replica]
        self._late = [task for task in self._late if task.replica != replica]

    def move(self) -> bool:
        """One step of one event: read the tombstone, or decide and publish."""
        pending = self.pending
        if not pending:
            return False
        world, last = self._world, len(pending) - 1
        at = world.dice.below(last + 1)
        task = pending[at]
        pending[at] = pending[last]
        pending.pop()
        if task.result is None and self._reads(task):
            return True
        if world.rate(world.knobs.capture_failures):
            world.sometimes("capture retried")
            task.result = None
            pending.append(task)
            return True
        self._publish(task)
        if world.rate(world.knobs.capture_failures // 4):
            # Published, but the answer was lost: Eventarc sends the event again.
            task.result = None
            pending.append(task)
        return True

    def _reads(self, task: _Task) -> bool:
        """Decide the event; whether that step went into reading its tombstone, or into failing to."""
        world = self._world
        steps = capture(task.body, task.headers, world.capture_fleet)
        try:
            wanted = next(steps)
        except StopIteration as end:
            task.result = end.value
            return False
        if world.unreachable(task.replica):
            world.sometimes("capture retried")
            if world.calm:
                # Dead for ever: Eventarc gives up after a day.
                self.lose(task.replica)
                return True
            self.pending.append(task)
            return True
        [found] = world.databases[wanted.replica].read([wanted.path], timeout=0)
        try:
            steps.send(found)
        except StopIteration as end:
            task.result = end.value
        self.pending.append(task)
        world.sometimes("tombstone read by capture")
        return True

    def _publish(self, task: _Task) -> None:
        world, message = self._world, task.result
        self._captured(task)
        if not isinstance(message, Message):
            return
        kind = message.attributes["kind"]
        world.sometimes(f"captured: {kind}")
        if message.attributes.get("heal"):
            world.sometimes(f"heal: {kind}")
        world.publish(message)

    def _captured(self, task: _Task) -> None:
        """Write down which write others now hear of: the event's own, or the one that a merge kept."""
        replica, data = task.replica, DocumentEventData.FromString(task.body)
        facts, field = self._world.facts, self._world.fleet.codec.field
        document = data.value if data.HasField("value") else data.old_value
        path = task.headers["ce-document"]
        if path.startswith(self._tombstones):
            path = document.fields["path"].string_value
        dot = micros(document.update_time) + (not data.HasField("value"))
        names = [(replica, path, dot)]
        if data.HasField("value") and field in document.fields:
            meta = document.fields[field].map_value.fields
            if "origin" in meta and "dot" in meta:
                names.append((meta["origin"].string_value, path, meta["dot"].integer_value))
        self._world.history.captured.update(facts.by_dot[name] for name in names if name in facts.by_dot)

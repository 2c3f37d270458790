"""What happens to everybody: time jumps, outages, a death, replays of the log, messages that are none."""

from typing import TYPE_CHECKING

from replication.documents.wire import DocumentEventData
from replication.ports import Message

if TYPE_CHECKING:
    from tests.simulation.world import World

JUMPS_US = (1_000_000, 9_000_000, 15_000_000, 70_000_000, 400_000_000)


class Chaos:
    """One misfortune a move."""

    def __init__(self, world: "World") -> None:
        self._world = world
        knobs = world.knobs
        self._weights = [
            ("jump", knobs.jumps),
            ("outage", knobs.outages),
            ("replay", knobs.replays),
            ("poison", knobs.poison),
            ("release", 2),
            ("die", 1 if knobs.dead else 0),
        ]

    def move(self) -> bool:
        """Do one of them."""
        getattr(self, f"_{self._world.dice.weighted(self._weights)}")()
        return True

    def _jump(self) -> None:
        world = self._world
        jump = world.dice.pick(JUMPS_US)
        world.sometimes("time jump")
        world.say(f"{jump // 1_000_000} s pass")
        world.clock.now += jump

    def _outage(self) -> None:
        world = self._world
        ended = [name for name in world.down if name != world.dead]
        if ended:
            world.down.remove(ended[0])
            world.say(f"{ended[0]} is back")
            return
        name = world.dice.pick(world.knobs.ids)
        if name not in world.down:
            world.sometimes("outage")
            world.say(f"{name} is down")
            world.down.append(name)

    def _die(self) -> None:
        world = self._world
        if world.dead is not None or not world.dice.chance(400):
            return
        world.dead = name = world.dice.pick(world.knobs.ids)
        world.sometimes("dead for ever")
        world.say(f"{name} is dead")
        if name not in world.down:
            world.down.append(name)
        world.late = [late for late in world.late if late.replica != name]
        if world.dice.chance(500):
            world.capture.lose(name)

    def _release(self) -> None:
        self._world.capture.release()

    def _replay(self) -> None:
        world = self._world
        log = list(world.log)
        if not log:
            return
        world.sometimes("replay while live")
        first = world.dice.below(len(log))
        for message in log[first : first + 1 + world.dice.below(8)]:
            world.publish(message, logged=False)

    def _poison(self) -> None:
        world = self._world
        what, message = self._poisoned()
        number = world.publish(message, logged=False)
        # None of these is addressed to a single replica, nor says that it comes from one of the fleet's.
        world.facts.messages[number] = None
        for name in world.knobs.ids:
            if message.attributes.get("replica") != name:
                world.history.poisoned[f"{number} at {name}"] = what
        world.sometimes(f"poison: {what}")

    def _poisoned(self) -> tuple[str, Message]:
        world = self._world
        good = world.log[0] if world.log else Message(b"\x0a\x00", {"replica": "eu", "kind": "write"})
        source = good.attributes.get("replica", "eu")
        bare = {"replica": source, "kind": "write", "ce-time": "2025-01-01T00:00:00Z"}
        other = next(name for name in world.knobs.ids if name != source)
        return world.dice.pick(
            (
                ("no attributes", Message(good.data, {})),
                ("no event", Message(b"\xff\xff\xff", bare)),
                ("nothing in it", Message(b"", bare)),
                ("unknown kind", Message(good.data, {**bare, "kind": "gossip"})),
                ("unknown replica", Message(good.data, {**bare, "replica": "atlantis"})),
                ("foreign database", Message(good.data, {**bare, "replica": other})),
                ("merged without version", Message(_bare_event(source), {**bare, "kind": "merged"})),
                ("delete without time", Message(_bare_delete(source), {"replica": source, "kind": "delete"})),
            )
        )


def _bare_event(replica: str) -> bytes:
    data = DocumentEventData()
    data.value.name = f"projects/sim/databases/{replica}/documents/orders/1"
    return bytes(data.SerializeToString())


def _bare_delete(replica: str) -> bytes:
    data = DocumentEventData()
    data.old_value.name = f"projects/sim/databases/{replica}/documents/orders/1"
    return bytes(data.SerializeToString())

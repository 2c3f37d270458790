"""One simulated world: a fleet's databases, topic, capture and workers, in one thread, one move at a time.

The code under simulation is the real one: `replication.apply` is driven one effect at a time, and capture one
step of one event. Who moves next is drawn from `dice`; what goes wrong is up to `faults`. Each process has its
own configuration, which a subclass gives it in `new_capture` and `new_worker`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from replication.adapters.memory import Change, MemoryDatabase, MemorySubscription, MemoryTopic
from replication.documents.wire import MICROS
from replication.fleet.model import Fleet, Replica, Target
from replication.ports import Message
from replication.simulation.capture import Capture
from replication.simulation.clock import Clock
from replication.simulation.dice import Dice
from replication.simulation.faults import Faults
from replication.simulation.worker import LEASE_S, Worker


class Mover(Protocol):
    """Whoever acts in the world."""

    def move(self) -> bool:
        """Do one thing; False when there was nothing to do."""
        ...


class World:
    """The replicas of `fleet`, `workers` workers of each, one capture of all, and the topic between them."""

    def __init__(
        self, fleet: Fleet, *, clock: Clock, dice: Dice, faults: Faults | None = None, workers: int = 2
    ) -> None:
        self.fleet, self.clock, self.dice = fleet, clock, dice
        self.faults = faults or Faults()
        self.published = 0
        self.dead_letters: list[Message] = []
        self.databases = {name: self._database(replica) for name, replica in fleet.replicas.items()}
        self.topic = MemoryTopic(now=clock.read, order=self.faults.deliver)
        self.subscriptions = {name: self.new_subscription(name) for name in fleet.replicas}
        self.capture = self.new_capture()
        self.workers = [self.new_worker(name, number) for number in range(workers) for name in fleet.replicas]

    # ── its parts, for a subclass to make others ──────────────────────────────────────────────────────────

    def new_database(self, replica: Replica) -> MemoryDatabase:
        """A replica's database."""
        return MemoryDatabase(replica.project, replica.database, now=self.clock.read)

    def new_subscription(
        self, replica: str, *, filter: Callable[[Mapping[str, str]], bool] | None = None
    ) -> MemorySubscription:
        """A replica's subscription. Without a filter workers skip what is not for them."""
        return self.topic.subscription(replica, ack_deadline_s=LEASE_S, filter=filter)

    def new_capture(self) -> Capture:
        """Capture of all replicas."""
        return Capture(self, self.fleet)

    def new_worker(self, replica: str, number: int) -> Worker:
        """A replica's `number`-th worker."""
        return Worker(self, Target(self.fleet, self.fleet.replica(replica)), number=number)

    # ── what happens in it ────────────────────────────────────────────────────────────────────────────────

    def publish(self, message: Message) -> str:
        """Put a message on the topic; its id."""
        self.published += 1
        return self.topic.publish(message)

    def settle(self, movers: Sequence[Mover], *, moves_max: int) -> bool:
        """Let them move until nothing is left to do; False if after `moves_max` moves something still is.

        A mover named twice moves twice as often.
        """
        seen, active = -1, list(movers)
        for move in range(moves_max):
            self.before_move(move)
            at = self.dice.below(len(active))
            if active[at].move():
                continue
            # A mover that had nothing to do is asked again only when there is something new.
            active[at] = active[-1]
            active.pop()
            if active:
                continue
            stirred = self.published + len(self.capture.pending)
            if stirred == seen:
                if self.at_rest():
                    return True
                # What a crashed worker held is delivered again when its lease runs out.
                self.clock.advance((LEASE_S + 1) * MICROS)
            seen, active = stirred, list(movers)
        return False

    def before_move(self, move: int) -> None:
        """Called before each move of `settle`: time passes."""
        self.clock.advance(1)

    def at_rest(self) -> bool:
        """Whether every event was captured and every message acknowledged."""
        return not (
            self.capture.pending
            or any(worker.busy for worker in self.workers)
            or any(subscription.backlog for subscription in self.subscriptions.values())
        )

    def _database(self, replica: Replica) -> MemoryDatabase:
        database = self.new_database(replica)
        database.on_change(partial(self._changed, replica.id))
        return database

    def _changed(self, replica: str, change: Change) -> None:
        self.capture.offer(replica, change)

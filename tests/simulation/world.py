"""One history: the package's simulated world, with applications, chaos, and a record of what happened.

Who moves next, and every fault, is drawn from the dice of the step (see `replication.simulation.dice`).
"""

import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from replication.adapters.memory import MemoryDatabase, MemorySubscription
from replication.errors import FirefleetError
from replication.fleet.model import Fleet, Replica, Target
from replication.ports import Message
from replication.simulation import clock, world
from replication.simulation.dice import Dice
from tests.simulation.application import Application
from tests.simulation.capture import Capture
from tests.simulation.chaos import Chaos
from tests.simulation.history import AppWrite, History
from tests.simulation.knobs import PRIMARY, Knobs, fleet_of
from tests.simulation.mishaps import Mishaps
from tests.simulation.record import Facts, LateWrite, clock_of, fact_of, finals_of, is_for, logged_of
from tests.simulation.trace import START_US, describe
from tests.simulation.worker import Worker

STEPS_PER_OPERATION = 12
SETTLING = 1 << 32
"""The first step of settling: its dice are apart from those of the history."""


class Clock(clock.Clock):
    """The world's time."""

    latest: "Clock"
    """The clock of the history under way, for planted bugs that look at a clock where they must not."""

    def __init__(self) -> None:
        super().__init__(START_US)
        Clock.latest = self


class World(world.World):
    """A fleet and everything around it, from one seed."""

    capture: Capture
    clock: Clock

    def __init__(self, seed: int, knobs: Knobs, trace: list[str] | None = None) -> None:
        self.seed, self.knobs, self.trace = seed, knobs, trace
        self.base = seed << 40
        self.history = History(knobs)
        self.facts = Facts()
        self.calm = False
        self.dead: str | None = None
        self.down: list[str] = []
        self.log: list[Message] = []
        self.late: list[LateWrite] = []
        self.unacked: dict[str, dict[str, str]] = {name: {} for name in knobs.ids}
        self._mourners: list[world.Mover] = []
        super().__init__(
            _fleet(knobs),
            clock=Clock(),
            dice=Dice(self.base - 1),
            faults=Mishaps(self),
            workers=knobs.workers,
        )
        self.applications = [Application(self, name) for name in knobs.ids]
        self.chaos = Chaos(self)

    # ── its parts ─────────────────────────────────────────────────────────────────────────────────────────

    def new_database(self, replica: Replica) -> MemoryDatabase:
        knobs = self.knobs
        skew = self.dice.below(2 * knobs.skew_us + 1) - knobs.skew_us if knobs.skew_us else 0
        return MemoryDatabase(
            replica.project,
            replica.database,
            now=self.clock.skewed(skew),
            whole_second_times=knobs.whole_seconds,
            unchanged_fires=knobs.unchanged_fires,
        )

    def new_subscription(self, replica: str, **_given: Any) -> MemorySubscription:
        if not self.knobs.filters:
            # The emulator's Pub/Sub ignores filters, and workers must do without.
            return super().new_subscription(replica)
        return super().new_subscription(replica, filter=lambda attributes: is_for(attributes, replica))

    def new_capture(self) -> Capture:
        return Capture(self, _fleet(self.knobs, misconfigured=self.knobs.misplacing_capture))

    def new_worker(self, replica: str, number: int) -> Worker:
        return Worker(self, Target(self.fleet, self.fleet.replica(replica)), number)

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────

    def run(self, steps: Iterable[int] | None = None) -> History:
        """Live through the history, let it settle, replay its log; returns what happened.

        `steps` are the steps to take, where not all: what a shrinker leaves of them.
        """
        history = self.history
        try:
            for step in range(self.knobs.operations * STEPS_PER_OPERATION) if steps is None else steps:
                self._step(step)
            self._settle("settling")
            history.finals = finals_of(self)
            if not history.restless:
                self._replay()
        except Exception:  # noqa: BLE001  whatever the core raises is a finding, with its seed
            history.crashed = traceback.format_exc()
        history.logged = logged_of(self)
        history.dead = self.dead
        history.published = self.published
        return history

    def _step(self, step: int) -> None:
        knobs = self.knobs
        self.dice = dice = Dice(self.base + step)
        self.clock.now += 1 + dice.below(knobs.tick_us)
        if self.late and dice.chance(300):
            self._land_late()
        others = knobs.capture_weight + knobs.worker_weight + knobs.chaos_weight
        # One operation in so many steps, whatever the weights of the rest.
        if dice.below(STEPS_PER_OPERATION) == 0:
            dice.pick(self.applications).move()
            return
        move = dice.below(others)
        if move < knobs.worker_weight:
            dice.pick(self.workers).move()
        elif move < knobs.worker_weight + knobs.capture_weight:
            self.capture.move()
        else:
            self.chaos.move()

    def _settle(self, what: str) -> None:
        """No more writes and faults: deliver everything, until nothing moves, or never will."""
        self.calm = True
        self.down = [self.dead] if self.dead else []
        self.capture.release()
        while self.late:
            self._land_late()
        living = [worker for worker in self.workers if worker.replica.id != self.dead]
        self._mourners = [worker for worker in self.workers if worker.replica.id == self.dead]
        # Far more than any history takes that ends: five replicas that all wrote one document tell each other
        # its merges some 150 times. Each time is an answer with a newer version, of which there are finitely
        # many; what goes round in a circle uses up any budget.
        budget = 10 * (1_500 + 200 * len(self.history.writes) + 60 * len(self.log))
        first = self.published
        if not self.settle([*living, *[self.capture] * len(living)], moves_max=budget):
            self.history.restless = (
                f"after {budget} moves of {what}, in which {self.published - first} messages were "
                "published, it still moves"
            )
        self.base += 1 << 34

    def before_move(self, move: int) -> None:
        self.dice = dice = Dice(self.base + SETTLING + move)
        self.clock.now += 1 + dice.below(1_000)
        if self._mourners and dice.chance(100):
            dice.pick(self._mourners).move()

    def at_rest(self) -> bool:
        living = [worker for worker in self.workers if worker.replica.id != self.dead]
        if self.capture.pending or any(worker.busy for worker in living):
            return False
        # Violations wait for their primary, however long it is dead; nothing else may wait with them.
        waits = {"violation"} if self.dead == PRIMARY else set()
        return all(
            kind in waits
            for name, unacked in self.unacked.items()
            if name != self.dead
            for kind in unacked.values()
        )

    def _replay(self) -> None:
        """Publish a part of the log again, in half of the histories; all of it in a few."""
        dice = Dice(self.base)
        part = dice.pick((0, 0, 0, 0, 0, 0, 100, 100, 250, 250, 500, 1000))
        if not part:
            return
        messages = [message for message in self.log if dice.chance(part)]
        for message in dice.shuffle(messages):
            self.publish(message, logged=False)
        self._settle("replaying")
        self.history.replayed = finals_of(self)

    def _land_late(self) -> None:
        late = self.late.pop(self.dice.below(len(self.late)))
        if self.clock.now > late.until:
            self.say("a late write expires", late.replica)
            return
        self.sometimes("late write landed")
        self.say("a late write arrives", late.replica)
        try:
            self.store(late.replica, late.writes, atomic=late.atomic)
        except FirefleetError:
            # Its condition no longer holds, as with any other write.
            self.sometimes("late write refused")

    # ── what it does for others, and writes down ──────────────────────────────────────────────────────────

    def publish(self, message: Message, *, logged: bool = True) -> str:
        """Put a message on the topic, and keep it for replays."""
        number = super().publish(message)
        self.facts.messages[number] = fact = fact_of(message, self.fleet)
        for name, unacked in self.unacked.items():
            if not self.knobs.filters or is_for(message.attributes, name):
                unacked[number] = message.attributes.get("kind", "")
        if logged:
            self.log.append(message)
        else:
            self.history.replays += 1
        if self.trace is not None:
            receiver = f" to {message.attributes['to']}" if "to" in message.attributes else ""
            heal = " heal" if message.attributes.get("heal") else ""
            self.say(f"message {number}: {message.attributes.get('kind')}{receiver}{heal} {fact}")
        return number

    def store(self, replica: str, writes: Sequence[Any], *, atomic: bool) -> Any:
        """Let a database take a worker's writes, and write down what that made durable."""
        database = self.databases[replica]
        if atomic:
            time = database.commit(writes, timeout=0)
            for write in writes:
                self._landed(replica, write, time)
            return time
        outcomes = database.batch_write(writes, timeout=0)
        for write, outcome in zip(writes, outcomes, strict=True):
            if outcome.code == 0:
                self._landed(replica, write, outcome.commit_time)
            else:
                self.sometimes("failed precondition")
        return outcomes

    def _landed(self, replica: str, write: Any, time: int) -> None:
        if not write.HasField("update") or write.HasField("update_mask"):
            return
        path = write.update.name[len(self.databases[replica].prefix) :]
        codec = self.fleet.codec
        if path.startswith(codec.conflicts):
            self.facts.log(replica, path, write.update, codec)
            return
        if path.startswith(codec.tombstones):
            path = write.update.fields["path"].string_value
        key = (replica, path)
        self.facts.stand(key, clock_of(write.update, codec.field))
        self.facts.landed.setdefault(key, []).append(time)
        if self.trace is not None:
            self.say(f"stored at {replica}: {path}", describe(write.update, codec.field))

    def unreachable(self, replica: str) -> bool:
        """Whether a replica's database is down."""
        return replica in self.down

    def rate(self, per_mille: int) -> bool:
        """Whether a fault happens now; never once the history settles."""
        return not self.calm and self.dice.chance(per_mille)

    def sometimes(self, what: str) -> None:
        """Count that something worth reaching was reached."""
        self.history.sometimes[what] += 1

    def say(self, what: str, *more: object) -> None:
        """One line of the trace."""
        if self.trace is not None:
            seconds = (self.clock.now - START_US) / 1_000_000
            self.trace.append(f"{seconds:12.6f}  {what} {' '.join(map(str, more))}".rstrip())

    def wrote(self, write: AppWrite) -> None:
        """Write down an application's write."""
        self.history.writes.append(write)
        self.facts.origins.append(self.facts.seen_at(write.parents) | {write.replica})
        self.facts.by_dot[write.replica, write.path, write.dot] = write.number
        self.facts.last_local[write.replica, write.path] = write.number
        self.facts.stand((write.replica, write.path), {write.replica: write.dot})


def _fleet(knobs: Knobs, *, misconfigured: bool = False) -> Fleet:
    return fleet_of(
        replicas=knobs.replicas,
        policy=knobs.policy,
        on_delete=knobs.on_delete,
        secret=knobs.secret,
        misconfigured=misconfigured,
    )

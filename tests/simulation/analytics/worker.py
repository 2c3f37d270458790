"""An analytics worker in the simulation: the real generators and buffer, stepped one effect at a time.

It does what `workers.analytics` does with threads: pullers, a flusher whose parts run side by side, a keeper.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

from replication.analytics.anonymise import Anonymiser
from replication.analytics.buffer import Buffer, Fate, HeldEvent
from replication.analytics.effects import (
    CheckFailed,
    CopyRefused,
    DeadLettered,
    Effect,
    LetterRefused,
    Settle,
    SideBySide,
    Stored,
    Taken,
)
from replication.analytics.flush import flush
from replication.analytics.intake import finish, offer, sort
from replication.analytics.job import Job
from replication.analytics.packing import Output
from replication.effects import Acknowledge, BatchWrite, Observe, Pause, Postpone, PublishEach, Read, Reading
from replication.errors import FirefleetError, Refused, Transient
from replication.ports import Message, Received, Subscription, Written
from tests.support.analytics import schema
from workers.runtime.backoff import longest_s
from workers.runtime.deliveries import Deliveries
from workers.runtime.progress import Progress

if TYPE_CHECKING:
    from tests.simulation.analytics.world import World

PULLERS = 2
ENDED = ("written", "duplicate", "throttled", "dead_lettered", "released")


class ProgramFault(Exception):
    """A bug somewhere below an effect: nothing the engine knows."""


class Stopping(Exception):
    """The worker has to stop before these steps are done."""


class FlakySubscription(Subscription):
    """The world's subscription, whose calls may fail; it judges what is acknowledged."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._delivered: dict[str, Message] = {}

    def pull(self, limit: int, *, timeout: float) -> list[Received]:
        self._world.land()
        pulled = self._world.subscription.pull(limit, timeout=0)
        self._delivered.update((item.ack_id, item.message) for item in pulled)
        if self._fails("pull"):
            raise Transient("the pull's answer is lost")
        return pulled

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        self._world.check_acknowledged([self._delivered[ack_id] for ack_id in ack_ids])
        if self._fails("acknowledge"):
            raise Transient("the acknowledgement is lost")
        self._world.subscription.acknowledge(ack_ids)
        if self._fails("acknowledge's answer"):
            raise Transient("the answer is lost")

    def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
        if self._fails("extend"):
            raise Transient("the extension is lost")
        self._world.subscription.extend(ack_ids, seconds)

    def close(self) -> None:
        """The subscription outlives its workers."""

    def message(self, ack_id: str) -> Message:
        return self._delivered[ack_id]

    def _fails(self, what: str) -> bool:
        world = self._world
        fails = not world.calm and world.dice.chance(world.knobs.failures)
        world.seen[f"lost {what}"] += fails
        return fails


@dataclass(slots=True, eq=False)
class Task:
    """Steps under way: a pull's, a flush's, or those of a flush's part."""

    kind: str
    steps: Generator[Effect, Any, Any]
    left: Callable[[], Iterable[str]]
    held: Sequence[HeldEvent] = ()
    answer: Any = None
    error: Exception | None = None
    awake_at: float = 0.0
    parts: list["Task"] = field(default_factory=list)
    letters: set[str] = field(default_factory=set)
    result: Any = None
    ended: bool = False


class Worker:
    """One worker, until it dies or has stopped."""

    def __init__(self, world: "World") -> None:
        warehouse = world.settings.warehouse
        assert warehouse is not None
        self._world = world
        self._job = Job(
            "eu", world.settings, schema(world.settings), Anonymiser(warehouse, b"k" * 16), world.new_token()
        )
        now = lambda: world.seconds  # noqa: E731
        self._subscription = FlakySubscription(world)
        self.buffer = Buffer(world.settings, now=world.seconds)
        self.deliveries = Deliveries("worker", self._subscription, Progress(now), deadline_s=60, now=now)
        self.tasks: list[Task] = []
        self._pulled: list[tuple[int, list[Received]]] = []
        self._flushes = 0
        self._closed = False
        self.stopping = False
        self.counts: Counter[str] = Counter()

    @property
    def idle(self) -> bool:
        """Whether nothing is under way or waits for a flush."""
        return not self.tasks and not self._pulled and not self.buffer.depth

    # ── moves ─────────────────────────────────────────────────────────────────────────────────────────────────

    def pull(self) -> None:
        """A puller that is free pulls."""
        busy = len(self._pulled) + sum(task.kind == "pull" for task in self.tasks)
        if self.stopping or busy >= PULLERS:
            return
        places = self.buffer.reserve(self._world.knobs.limit)
        if not places:
            self._world.seen["buffer full"] += 1
            return
        try:
            pulled = self._subscription.pull(places, timeout=0)
        except Transient:
            pulled = []
        if not pulled:
            self.buffer.unreserve(places)
            return
        self.deliveries.hold(pulled)
        self._pulled.append((places, pulled))

    def take(self) -> None:
        """A puller offers what it has pulled."""
        if not self._pulled:
            return
        places, pulled = self._pulled.pop(0)
        found = sort(pulled, self._job.schema)
        offered = offer(found, self.buffer)
        self.buffer.unreserve(places)
        self._world.throttle([self._subscription.message(ack) for ack in offered.deliveries[Fate.THROTTLED]])
        for fate, deliveries in offered.deliveries.items():
            self._world.seen[fate.name.lower()] += len(deliveries)
        self.tasks.append(
            Task(
                "pull",
                finish(found, offered, self._job),
                lambda: offered.left(pulled),
            )
        )

    def flush(self, *, anyway: bool = False) -> None:
        """The flusher begins a flush, if one is due."""
        if any(task.kind == "flush" for task in self.tasks):
            return
        if not anyway and self.buffer.wait(self._world.seconds) > 0:
            return
        held = self.buffer.take(self._world.seconds)
        if not held:
            return
        self._flushes += 1
        output = Output(
            prefix=self._world.database.prefix,
            collection=self._job.settings.collection,
            types=self._job.settings.types,
            batch=f"{self._job.token}-{self._flushes}",
            documents_max=self._world.knobs.documents_max,
        )
        steps = flush(held, self._job, output)
        self.tasks.append(Task("flush", steps, lambda: self._give_up(held), held))

    def stop(self) -> None:
        """The signal to stop: nothing more is pulled, and no step waits for a second try."""
        self.stopping = True

    def crash(self) -> None:
        """The process is gone: nothing more of it happens."""
        for task in self.tasks:
            for part in task.parts:
                part.steps.close()
            task.steps.close()

    def step(self) -> bool:
        """One effect of one task, if one can go on; whether it could."""
        if self.stopping and not self._closed and not any(task.kind == "flush" for task in self.tasks):
            self._closed = True
            self.buffer.close()
            self.flush(anyway=True)
        ready = [task for task in self._all_tasks() if self._is_ready(task)]
        if not ready:
            return False
        self._advance(self._world.dice.pick(ready))
        self.tasks = [task for task in self.tasks if not task.ended]
        return True

    def _all_tasks(self) -> list[Task]:
        return [part for task in self.tasks for part in (task, *task.parts)]

    def _is_ready(self, task: Task) -> bool:
        waits = any(not part.ended for part in task.parts)
        return not task.ended and not waits and task.awake_at <= self._world.seconds

    def _advance(self, task: Task) -> None:
        if task.parts:
            task.answer, task.parts = [part.result or [] for part in task.parts], []
        answer, error = task.answer, task.error
        task.answer = task.error = None
        try:
            effect = task.steps.send(answer) if error is None else task.steps.throw(error)
        except StopIteration as end:
            task.ended, task.result = True, end.value
            return
        try:
            task.answer = self._perform(effect, task)
        except FirefleetError as failure:
            task.error = failure
        except (ProgramFault, Stopping) as fault:
            self._world.seen[type(fault).__name__] += 1
            task.steps.close()
            task.ended = True
            self._release(task.left())

    # ── effects ───────────────────────────────────────────────────────────────────────────────────────────────

    def _perform(self, effect: Effect, task: Task) -> Any:
        match effect:
            case BatchWrite():
                self._fault()
                return self._write(effect.writes)
            case Read():
                self._fault()
                self._lose("read")
                return Reading(self._world.database.read(effect.paths, timeout=1), 0.0)
            case PublishEach():
                self._fault()
                return self._publish(effect, task)
            case Acknowledge():
                return self.deliveries.acknowledge(effect.ack_ids)
            case Postpone():
                assert effect.seconds == 0
                return self._release(effect.ack_ids)
            case Observe():
                for seen in effect.observations:
                    self._observe(seen)
            case Pause():
                if self.stopping:
                    raise Stopping
                self._world.seen["pause"] += 1
                task.awake_at = self._world.seconds + longest_s(effect.attempt)
            case Settle():
                return self.buffer.settle(effect.held, stored=effect.stored)
            case SideBySide():
                parts = list(effect.parts)
                self._world.seen["parts side by side"] += len(parts) > 1
                task.parts = [Task("part", part.steps, partial(self._give_up, part.held)) for part in parts]
            case _:
                assert_never(effect)
        return None

    def _fault(self) -> None:
        world = self._world
        if not world.calm and world.dice.chance(world.knobs.faults):
            raise ProgramFault

    def _lose(self, what: str) -> None:
        world = self._world
        if not world.calm and world.dice.chance(world.knobs.failures):
            world.seen[f"lost {what}"] += 1
            raise Transient(f"the {what} is lost")

    def _write(self, writes: Sequence[Any]) -> list[Written]:
        world, dice = self._world, self._world.dice
        world.land()
        if world.is_refused(writes) and (len(writes) == 1 or dice.chance(500)):
            world.seen["request refused"] += 1
            raise Refused("something in it is wrong")
        if world.calm or not dice.chance(world.knobs.failures):
            return world.write(writes)
        fault = dice.pick(("lost", "unknown", "half", "late", "busy"))
        world.seen[f"{fault} write"] += 1
        match fault:
            case "unknown":
                world.write(writes)
            case "half":
                world.write([write for write in writes if dice.chance(500)])
            case "late":
                world.write_later(writes)
            case "busy":
                away = Written(14, 0, "away")
                return [away if dice.chance(500) else world.write([write])[0] for write in writes]
        raise Transient("no answer")

    def _publish(self, effect: PublishEach, task: Task) -> list[FirefleetError | None]:
        world, dice = self._world, self._world.dice
        if effect.dead_letters:
            self._check_letters(effect.messages, task)
        down = effect.dead_letters and world.knobs.letters_down and not world.calm
        outcomes: list[FirefleetError | None] = []
        for message in effect.messages:
            fails = down or (not world.calm and dice.chance(world.knobs.failures))
            fault = dice.pick(("lost", "unknown", "refused")) if fails and not down else "lost"
            if not fails or fault == "unknown":
                world.deliver(message, dead_letter=effect.dead_letters)
            if not fails:
                outcomes.append(None)
                continue
            world.seen[f"{fault} {'letter' if effect.dead_letters else 'copy'}"] += 1
            if fault == "refused" and not effect.dead_letters:
                world.deliver(message, dead_letter=False)
            outcomes.append(Refused("no") if fault == "refused" else Transient("no answer"))
        return outcomes

    def _check_letters(self, messages: Sequence[Message], task: Task) -> None:
        """Dead letters come last: by then nothing else of the flush waits."""
        task.letters |= {message.attributes["event"] for message in messages}
        flushes = [found for found in self.tasks if found is task or task in found.parts]
        for flushing in flushes:
            names = {
                event.received.message.attributes["event"] for event in self.buffer.unsettled(flushing.held)
            }
            if names - task.letters:
                self._world.broken("refused_delay_no_others", f"{names - task.letters} wait for dead letters")

    def _give_up(self, held: Sequence[HeldEvent]) -> list[str]:
        settled = self.buffer.settle(self.buffer.unsettled(held), stored=False)
        return settled.own + settled.copies

    def _release(self, ack_ids: Iterable[str]) -> None:
        self.counts["released"] += self.deliveries.release(ack_ids)

    def _observe(self, seen: Any) -> None:
        match seen:
            case Taken():
                self.counts["received"] += seen.received.total()
                self.counts["duplicate"] += seen.duplicates.total()
                self.counts["throttled"] += seen.throttled.total()
            case Stored():
                self.counts["written"] += seen.written.total()
                self.counts["duplicate"] += seen.duplicates.total()
            case DeadLettered():
                self.counts["dead_lettered"] += seen.amounts.total()
                self._world.seen["dead letters"] += seen.amounts.total()
            case LetterRefused() | CopyRefused():
                self._world.seen["observed refusals"] += 1
            case CheckFailed():
                self._world.broken("checks_never_fail", f"{seen.error!r}")

    # ── the rules ─────────────────────────────────────────────────────────────────────────────────────────────

    def check_bounds(self) -> None:
        """Memory is bounded, whatever fails."""
        knobs = self._world.knobs
        if self.buffer.depth > knobs.buffer:
            self._world.broken("bounded", f"{self.buffer.depth} messages in a buffer of {knobs.buffer}")
        if len(self.deliveries) > knobs.buffer + PULLERS * knobs.limit:
            self._world.broken("bounded", f"{len(self.deliveries)} deliveries are held")

    def check_ended(self) -> None:
        """A worker with nothing under way holds nothing, and has counted each message once."""
        left = (self.buffer.depth, self.buffer.bytes, len(self.deliveries))
        if left != (0, 0, 0):
            self._world.broken("nothing_held", f"depth, bytes, deliveries: {left}")
        ended = sum(self.counts[name] for name in ENDED)
        if self.counts["received"] != ended:
            self._world.broken(
                "counted_once", f"{self.counts['received']} received, {ended} ended: {self.counts}"
            )

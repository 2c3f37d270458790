"""Prove an application's own policy, in its tests: its laws, then whole fleets in simulation.

    from replication.simulation.prove import prove

    def test_our_policy_is_safe():
        prove(our_policy, examples=[{"status": "open", "tags": ["a"]}, {"status": "done"}])

`conflict.laws` compares answers to each other. Here the policy decides real conflicts: three replicas in
memory, written concurrently, and the core that runs in production. Changes are captured late, delivered in no
order and some of them twice, workers die and lose answers. What the applications write, and when, follows from
the seed alone; it is then delivered in several orders. All replicas must end equal, and whatever the order, on
the same documents; and the policy must not fail. Deletes are mixed in, and where there are some, the order may
decide (see "Not promised" in ARCHITECTURE.md): replicas must be equal all the same.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, assert_never

from conflict.laws import Clock, Decide, assert_lawful
from conflict.policies import Custom
from conflict.resolve import Fields, OnDelete
from replication.adapters.memory import Change, MemoryDatabase, MemorySubscription, MemoryTopic
from replication.adapters.memory_pubsub import Retained
from replication.apply.batch import apply
from replication.apply.effects import Effect, Steps
from replication.apply.outcomes import Conflict
from replication.apply.writes import Target
from replication.changes.capture import ReadTombstone, capture, run_capture
from replication.configuration.parse import Fleet, Replica, Rule
from replication.documents.plain import BodyFields, fill
from replication.documents.stored import dismantle
from replication.documents.wire import MICROS, Value
from replication.effects import (
    Acknowledge,
    BatchWrite,
    Commit,
    Observe,
    Pause,
    Postpone,
    Publish,
    Read,
    Reading,
)
from replication.errors import ConditionFailed, Refused, Transient
from replication.ports import Found, Message

HISTORIES = 50
ORDERS = 3
"""Orders in which the changes of one history are delivered."""
ROUNDS = 3
"""Times that the replicas write without having seen each other; each begins from what the last one left."""
REPLICAS = ("eu", "us", "apac")
WORKERS = 2
PATHS = ("documents/1", "documents/2")
MOVES_MAX = 20_000
_START = 1_700_000_000 * MICROS
_ROUND = 3_600 * MICROS
_SHOWN_CHARACTERS_MAX = 400

Bodies = Mapping[str, bytes | None]
"""What all replicas hold: path -> body, None where there is no document."""


class Unsafe(AssertionError):
    """A policy does harm; the text says what, and in which history.

    `simulate(…, seed=N, histories=1)` lives it again.
    """


def prove(
    policy: Decide,
    examples: Sequence[Fields],
    *,
    on_delete: OnDelete = OnDelete.LWW,
    histories: int = HISTORIES,
    seed: int = 1,
    clock: Clock = time.perf_counter,
) -> None:
    """Check a policy's laws and let it decide in simulated fleets; raises `LawBroken` or `Unsafe`.

    `examples` are whole bodies, one of every shape the documents have; the histories write them and mixtures of
    them. The same `seed` gives the same histories.
    """
    assert_lawful(policy, examples, clock=clock)
    simulate(policy, examples, on_delete=on_delete, histories=histories, seed=seed)


def simulate(
    policy: Decide,
    examples: Sequence[Fields],
    *,
    on_delete: OnDelete = OnDelete.LWW,
    histories: int = HISTORIES,
    seed: int = 1,
) -> int:
    """Only the simulated fleets; how many conflicts the policy has decided there. Raises `Unsafe`."""
    rule = Rule(match="{document=**}", policy=Custom("proved", policy), on_delete=on_delete)
    fleet = Fleet(
        project="proof",
        topic="changes",
        replicas={name: Replica(id=name, project="proof", database=name, location=name) for name in REPLICAS},
        rules=(rule,),
    )
    conflicts = 0
    for history in range(seed, seed + histories):
        rounds = list(_rounds(examples, _dice(f"{history}")))
        first: list[Bodies] = []
        for order in range(ORDERS):
            world = _World(fleet, _dice(f"{history}/{order}"), f"seed {history}")
            ends = [world.live(number, writes) for number, writes in enumerate(rounds, 1)]
            first = first or ends
            _compare(rounds, first, ends, f"seed {history}")
            conflicts += world.conflicts
    return conflicts


class _Write(NamedTuple):
    """An application's write: of the whole document, of some of its fields, or, without any, its delete."""

    replica: str
    path: str
    fields: Fields | None
    whole: bool = True


def _dice(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311  nothing secret


def _rounds(examples: Sequence[Fields], dice: random.Random) -> Iterator[list[_Write]]:
    for _ in range(ROUNDS):
        yield [
            _write(examples, dice, replica, path)
            for path in PATHS
            for replica in dice.sample(REPLICAS, len(REPLICAS))
            if dice.random() < 0.8
        ]


def _write(examples: Sequence[Fields], dice: random.Random, replica: str, path: str) -> _Write:
    if dice.random() < 0.05:
        return _Write(replica, path, None)
    names = sorted({name for example in examples for name in example})
    mixture = {}
    for name in names:
        source = dice.choice(examples)
        if name in source:
            mixture[name] = source[name]
    body = dice.choice([mixture, *examples])
    if body and dice.random() < 0.3:
        name = dice.choice(sorted(body))
        return _Write(replica, path, {name: body[name]}, whole=False)
    return _Write(replica, path, body)


def _compare(
    rounds: Sequence[Sequence[_Write]], first: Sequence[Bodies], other: Sequence[Bodies], where: str
) -> None:
    deleted: set[str] = set()
    for number, (writes, one, two) in enumerate(zip(rounds, first, other, strict=True), 1):
        deleted |= {write.path for write in writes if write.fields is None}
        for path in PATHS:
            if path not in deleted and one[path] != two[path]:
                raise Unsafe(
                    f"the order of delivery decides what is kept of {path} ({where}, round {number}):\n"
                    f"  {_shown(one[path])}\n  {_shown(two[path])}"
                )


def _shown(body: bytes | None) -> str:
    text = "no document" if body is None else repr(dict(BodyFields(body)))
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}…"


@dataclass(slots=True)
class _Worker:
    """One worker of a replica, between two effects of the batch it holds."""

    target: Target
    subscription: MemorySubscription
    steps: Steps | None = None
    answer: Any = None
    error: Exception | None = None
    held: set[str] = field(default_factory=set)

    def drop(self) -> None:
        """Forget the batch; what is not acknowledged comes again."""
        if self.steps is not None:
            self.steps.close()
        self.subscription.extend(sorted(self.held), 0)
        self.steps, self.answer, self.error, self.held = None, None, None, set()


class _World:
    """Three replicas, their events, the topic and the workers; who moves next is drawn from the dice."""

    def __init__(self, fleet: Fleet, dice: random.Random, where: str) -> None:
        self._fleet, self._dice, self._where = fleet, dice, where
        self._now = _START
        self._topic = MemoryTopic(now=lambda: self._now, order=self._order)
        self._events: list[tuple[str, Change]] = []
        self.conflicts = 0
        self._databases = {name: self._database(name) for name in fleet.replicas}
        self._workers = [
            _Worker(Target(fleet, replica), self._topic.subscription(name))
            for name, replica in fleet.replicas.items()
            for _ in range(WORKERS)
        ]

    def live(self, number: int, writes: Sequence[_Write]) -> Bodies:
        """Let the applications write, then deliver everything; what all replicas hold in the end."""
        self._now = _START + number * _ROUND
        for write in writes:
            self._now += MICROS
            self._perform_write(write)
        for _ in range(MOVES_MAX):
            self._now += 1
            movers = [worker for worker in self._workers if worker.steps or worker.subscription.backlog]
            if not movers and not self._events:
                return self._bodies()
            if self._events and (not movers or self._dice.random() < 0.3):
                self._capture()
            else:
                self._move(self._dice.choice(movers))
        raise Unsafe(f"the replicas go on telling each other ({self._where}, round {number})")

    def _database(self, name: str) -> MemoryDatabase:
        database = MemoryDatabase("proof", name, now=lambda: self._now)
        database.on_change(lambda change: self._events.append((name, change)))
        return database

    def _order(self, ready: list[Retained]) -> list[Retained]:
        self._dice.shuffle(ready)
        return ready[: 1 + self._dice.randrange(3)]

    def _perform_write(self, write: _Write) -> None:
        database = self._databases[write.replica]
        if write.fields is None:
            database.delete(write.path)
            return
        values = {name: _value(value) for name, value in write.fields.items()}
        if write.whole or database.get(write.path) is None:
            database.set(write.path, values)
        else:
            database.update(write.path, values)

    def _capture(self) -> None:
        _, change = self._events.pop(self._dice.randrange(len(self._events)))
        result = run_capture(capture(change.body, change.headers, self._fleet), self._tombstone)
        if isinstance(result, Message):
            for _ in range(2 if self._dice.random() < 0.1 else 1):
                self._topic.publish(result)

    def _tombstone(self, wanted: ReadTombstone) -> Found:
        [found] = self._databases[wanted.replica].read([wanted.path], timeout=0)
        return found

    def _move(self, worker: _Worker) -> None:
        if worker.steps is None:
            if batch := worker.subscription.pull(5, timeout=0):
                worker.held = {received.ack_id for received in batch}
                worker.steps = apply(batch, worker.target)
            return
        answer, error = worker.answer, worker.error
        worker.answer = worker.error = None
        try:
            effect = worker.steps.send(answer) if error is None else worker.steps.throw(error)
        except StopIteration:
            worker.steps = None
            return
        if self._dice.random() < 0.02:
            worker.drop()
            return
        try:
            worker.answer = self._perform(effect, worker)
            if isinstance(effect, BatchWrite | Commit) and self._dice.random() < 0.05:
                worker.error = Transient("the answer is lost")
        except (ConditionFailed, Refused) as failure:
            worker.error = failure

    def _perform(self, effect: Effect, worker: _Worker) -> Any:
        database = self._databases[worker.target.replica.id]
        match effect:
            case Read():
                return Reading(self._databases[effect.replica].read(effect.paths, timeout=0), 0.0)
            case BatchWrite():
                return database.batch_write(effect.writes, timeout=0)
            case Commit():
                return database.commit(effect.writes, timeout=0)
            case Publish():
                for message in effect.messages:
                    if effect.dead_letters:
                        error = message.attributes["error"]
                        raise Unsafe(f"what it answers cannot be stored ({self._where}): {error}")
                    self._topic.publish(message)
            case Acknowledge():
                worker.subscription.acknowledge(effect.ack_ids)
                worker.held.difference_update(effect.ack_ids)
            case Observe():
                for seen in effect.observations:
                    self._judge(seen.conflict)
            case Pause() | Postpone():
                pass
            case _:
                assert_never(effect)
        return None

    def _judge(self, conflict: Conflict | None) -> None:
        if conflict is None:
            return
        self.conflicts += 1
        if conflict.failure is not None:
            sides = "\n".join(f"  {_shown(side.body)}" for side in conflict.sides)
            raise Unsafe(f"it fails ({self._where}): {conflict.failure}\n{sides}")

    def _bodies(self) -> Bodies:
        held = {name: self._held(name) for name in self._databases}
        for path in PATHS:
            found = Counter(bodies[path] for bodies in held.values())
            if len(found) > 1:
                texts = "\n".join(f"  {name}: {_shown(bodies[path])}" for name, bodies in held.items())
                raise Unsafe(f"the replicas differ in {path} ({self._where}):\n{texts}")
        return held[REPLICAS[0]]

    def _held(self, name: str) -> Bodies:
        prefix, codec = self._fleet.replica(name).prefix, self._fleet.codec
        documents = {path: self._databases[name].get(path) for path in PATHS}
        return {
            path: dismantle(document, path=path, prefix=prefix, codec=codec).body if document else None
            for path, document in documents.items()
        }


def _value(plain: Any) -> Any:
    value = Value()
    fill(value, plain)
    return value

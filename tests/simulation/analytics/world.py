"""The world of a history: a topic of events, what is stored and published, and the rules that must hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from replication.adapters.memory import MemoryDatabase
from replication.adapters.memory_pubsub import MemoryTopic, Retained
from replication.analytics.packing import events_in
from replication.analytics.reader import read_events
from replication.configuration.analytics import Analytics
from replication.documents.wire import MICROS
from replication.ports import Message, Status, Written
from replication.simulation.dice import Dice
from tests.support.analytics import T0, TYPES, settings, stored
from workers.publish.generator import Generator, Mix

THROTTLED = {**TYPES, "page_view": {**TYPES["page_view"], "throttle": {"rate": 0.5, "burst": 3, "sample": 0.3}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What a history is like. Chances are per mille of the effects or moves they befall."""

    layout: str
    buffer: int
    documents_max: int
    recent: int
    workers: int
    limit: int
    cursed: int
    failures: int
    crashes: int
    stops: int
    faults: int
    throttled: bool
    letters_down: bool


def draw(seed: int) -> Knobs:
    """The knobs of a seed."""
    dice = Dice(seed ^ 0x5EED)
    return Knobs(
        layout=dice.pick(("packed", "per-event")),
        buffer=dice.pick((6, 20, 60)),
        documents_max=dice.pick((1, 2, 4, 500)),
        recent=dice.pick((16, 1_000)),
        workers=dice.pick((1, 2, 3)),
        limit=dice.pick((3, 10, 30)),
        cursed=dice.pick((0, 30, 150)),
        failures=dice.pick((0, 40, 150)),
        crashes=dice.pick((0, 4, 15)),
        stops=dice.pick((0, 4, 15)),
        faults=dice.pick((0, 0, 10)),
        throttled=dice.chance(200),
        letters_down=dice.chance(250),
    )


class World:
    """Everything outside the workers; `wrong` has the broken rules, `seen` counts what happened."""

    def __init__(self, seed: int, knobs: Knobs) -> None:
        self.knobs = knobs
        self.dice = Dice(seed)
        self.now = T0
        self.calm = False
        self.seen: Counter[str] = Counter()
        self.wrong: list[tuple[str, str]] = []
        self.settings = _settings(knobs)
        clock = lambda: self.now  # noqa: E731
        self.topic = MemoryTopic(now=clock, order=self._disorder)
        self.subscription = self.topic.subscription("analytics-eu", ack_deadline_s=60)
        self.database = MemoryDatabase("p", "eu", now=clock)
        self._generator = Generator(
            self.settings, region="eu", seed=seed, now=clock, mix=Mix(duplicates=0.25, invalid=0.08, users=12)
        )
        self._lines: dict[str, dict[str, Any]] = {}
        self._group_of: dict[str, str] = {}
        self._cursed: set[str] = set()
        self._late: list[tuple[int, Sequence[Any]]] = []
        self.stored: set[str] = set()
        """Groups of duplicates of which an event is stored."""
        self.lettered: set[str] = set()
        """Messages whose dead letter is published."""
        self.copies: set[str] = set()
        """Keys of the warehouse's copies that are published, or refused for good."""
        self._throttled: set[str] = set()

    def new_token(self) -> str:
        """The name of a new worker."""
        self.seen["workers"] += 1
        return f"worker{self.seen['workers']}"

    @property
    def seconds(self) -> float:
        return self.now / MICROS

    def publish(self, count: int) -> None:
        for message, line in self._generator.messages(count):
            self._lines[line["message"]] = dict(line)
            if line["valid"]:
                group = line["group"]
                if group not in self._group_of.values() and self.dice.chance(self.knobs.cursed):
                    self._cursed.add(group)
                self._group_of[line["id"]] = group
            self.topic.publish(message)

    def _disorder(self, ready: list[Retained]) -> list[Retained]:
        mixed = self.dice.shuffle(list(ready))
        # The same message twice in one pull.
        return mixed + mixed[:1] if self.dice.chance(200) else mixed

    # ── what the services do ──────────────────────────────────────────────────────────────────────────────────

    def write(self, writes: Sequence[Any]) -> list[Written]:
        """Apply writes, each on its own; a document with a cursed event is refused."""
        outcomes = []
        for write in writes:
            groups = self._groups(write)
            if groups & self._cursed:
                outcomes.append(Written(Status.INVALID_ARGUMENT, 0, "cursed"))
                continue
            [outcome] = self.database.batch_write([write], timeout=1)
            if outcome.code == Status.OK:
                self.stored |= groups
            outcomes.append(outcome)
        return outcomes

    def write_later(self, writes: Sequence[Any]) -> None:
        """A request that is given up by its sender, and lands all the same."""
        self._late.append((self.now + self.dice.below(100) * MICROS, writes))

    def land(self) -> None:
        """Apply the late requests that are due."""
        due = [writes for at, writes in self._late if at <= self.now]
        self._late = [(at, writes) for at, writes in self._late if at > self.now]
        for writes in due:
            self.write(writes)

    def is_refused(self, writes: Sequence[Any]) -> bool:
        """Whether the database may refuse a request of these as a whole."""
        return any(self._groups(write) & self._cursed for write in writes)

    def _groups(self, write: Any) -> set[str]:
        return {self._group_of[event.body["id"]] for event in events_in(write.update)}

    def deliver(self, message: Message, *, dead_letter: bool) -> None:
        """A message has reached the dead-letter topic or the warehouse's."""
        if dead_letter:
            self.lettered.add(message.attributes["event"])
        else:
            self.copies.add(orjson.loads(message.data)["key"])

    # ── the rules ─────────────────────────────────────────────────────────────────────────────────────────────

    def broken(self, rule: str, text: str) -> None:
        self.wrong.append((rule, text))

    def throttle(self, messages: Sequence[Message]) -> None:
        """A worker has throttled these: from then on their events may be lost."""
        self._throttled |= {self._lines[message.attributes["event"]]["id"] for message in messages}

    def check_acknowledged(self, messages: Sequence[Message]) -> None:
        """What is acknowledged is stored, dead-lettered, or was throttled."""
        for message in messages:
            name = message.attributes["event"]
            line = self._lines[name]
            durable = line["valid"] and (line["group"] in self.stored or line["id"] in self._throttled)
            if not durable and name not in self.lettered:
                self.broken("durable_before_acknowledged", f"message {name} ({line})")

    def judge(self) -> None:
        """Once everything has come to rest: each accepted event is read exactly once, and no other."""
        while self._late:
            self.now += MICROS
            self.land()
        lines = self._lines.values()
        mine = Counter(self._group_of[event.body["id"]] for event in read_events(stored(self.database)))
        if again := [group for group, times in mine.items() if times > 1]:
            self.broken("read_once", f"{again}")
        throttled = {line["message"] for line in lines if line["valid"] and line["id"] in self._throttled}
        excused = {line["group"] for line in lines if line["message"] in throttled}
        wanted = {line["group"] for line in lines if line["valid"]} - self._cursed
        if lost := wanted - mine.keys() - excused:
            self.broken("nothing_lost", f"{lost} are not stored")
        letters = {line["message"] for line in lines if not line["valid"] or line["group"] in self._cursed}
        if letters - throttled != self.lettered - throttled:
            self.broken("dead_letters", f"{letters ^ self.lettered}")
        if len(self.copies) < len(mine):
            self.broken("copies", f"{len(self.copies)} copies of {len(mine)} events are in the warehouse")
        if self.knobs.layout == "per-event" and len(list(stored(self.database))) != len(mine):
            self.broken("stored_once", f"{len(mine)} events in more documents")


def _settings(knobs: Knobs) -> Analytics:
    return settings(
        layout=knobs.layout,
        types=THROTTLED if knobs.throttled else TYPES,
        recent=knobs.recent,
        buffer={"events": knobs.buffer},
        flush={"every": "10s", "events": max(1, knobs.buffer // 2)},
        warehouse={"topic": "warehouse", "key_env": "K", "users": ["target"], "drop": ["page"]},
    )

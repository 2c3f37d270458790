"""What the memory backend adds to the contract: given clocks, triggers, leases, reproducible order."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from replication.adapters.memory import Change, MemoryDatabase, MemorySubscription, MemoryTopic
from replication.adapters.memory_documents import STORED_PER_SERIALISED, stored_size
from replication.adapters.memory_pubsub import Retained
from replication.documents.wire import Document, DocumentEventData, Value, Write, micros, set_micros
from replication.errors import ConditionFailed, Refused
from replication.ports import Message
from tests.support.polling import PATIENCE_S

START = 1_800_000_000_000_000
SECOND = 1_000_000


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> int:
        return self.time

    def pass_(self, seconds: float) -> None:
        self.time += int(seconds * SECOND)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(clock: Clock) -> MemoryDatabase:
    return MemoryDatabase("p", "app-eu", now=clock)


def number(value: int) -> Any:
    return Value(integer_value=value)


class TestTimes:
    def test_commits_take_the_given_time_and_go_on_where_it_stops_or_turns_back(
        self, database: MemoryDatabase, clock: Clock
    ) -> None:
        assert database.set("c/1", {"n": number(1)}) == START
        assert database.set("c/1", {"n": number(2)}) == START + 1
        clock.pass_(-10)
        assert database.set("c/1", {"n": number(3)}) == START + 2
        clock.pass_(20)
        assert database.set("c/1", {"n": number(4)}) == START + 10 * SECOND

    def test_a_read_speaks_for_its_time_so_the_next_commit_is_later(self, database: MemoryDatabase) -> None:
        [found] = database.read(["c/1"], timeout=0)
        assert found.read_time == START
        assert database.set("c/1", {}) == START + 1


class TestApplication:
    """The side an application uses, which does what the official client's methods do."""

    def test_set_replaces_and_update_changes_what_it_names(self, database: MemoryDatabase) -> None:
        database.set("c/1", {"gone": number(0)})
        database.set(
            "c/1", {"a": number(1), "m": Value(map_value={"fields": {"x": number(1), "y": number(2)}})}
        )
        time = database.update("c/1", {"m.x": number(5), "m.y": None, "b": number(2)})
        document = database.get("c/1")
        assert document is not None
        assert micros(document.update_time) == time
        assert dict(document.fields) == {
            "a": number(1),
            "b": number(2),
            "m": Value(map_value={"fields": {"x": number(5)}}),
        }

    def test_update_of_a_missing_document_fails(self, database: MemoryDatabase) -> None:
        with pytest.raises(ConditionFailed, match="c/1: there is no such document"):
            database.update("c/1", {"a": number(1)})

    def test_delete_removes_and_may_find_nothing(self, database: MemoryDatabase) -> None:
        database.set("c/1", {})
        assert database.delete("c/1") < database.delete("c/1")
        assert database.get("c/1") is None

    def test_listing_is_sorted_complete_and_of_copies(self, database: MemoryDatabase) -> None:
        for path in ("c/2", "_repl_tombstones/x", "c/1/d/1", "c/1"):
            database.set(path, {"n": number(1)})
        documents = list(database.documents())
        assert database.paths() == ["_repl_tombstones/x", "c/1", "c/1/d/1", "c/2"]
        assert [one.name for one in documents] == [database.prefix + path for path in database.paths()]
        documents[0].Clear()
        assert next(database.documents()).fields["n"] == number(1)

    def test_an_oversize_or_unknown_write_is_refused(self, database: MemoryDatabase) -> None:
        half = Value(string_value="x" * 600_000)
        with pytest.raises(Refused, match="1048576"):
            database.set("c/1", {"a": half, "b": half})
        foreign = Write(update=Document(name="projects/p/databases/app-us/documents/c/1"))
        with pytest.raises(Refused, match="not a document of this database"):
            database.commit([foreign], timeout=0)
        transform = Write(update=Document(name=database.prefix + "c/1"))
        transform.update_transforms.add(field_path="n").increment.CopyFrom(number(1))
        with pytest.raises(Refused, match="plain update"):
            database.commit([transform], timeout=0)

    @pytest.mark.parametrize(
        "value",
        [
            Value(geo_point_value={}),
            Value(timestamp_value={}),
            Value(double_value=0),
            number(0),
            Value(null_value=0),
            Value(string_value=""),
            Value(map_value={"fields": {"a": number(0)}}),
        ],
    )
    def test_no_value_is_larger_than_the_shortcut_around_measuring_assumes(self, value: Any) -> None:
        fields = Document(fields={"x": Value(array_value={"values": [value] * 1_000})}).fields
        serialised = Document(name="projects//databases//documents/c/1", fields=fields).ByteSize()
        assert stored_size("c/1", fields) <= STORED_PER_SERIALISED * serialised

    def test_closing_keeps_the_documents_for_the_other_workers(self, database: MemoryDatabase) -> None:
        database.set("c/1", {})
        database.close()
        assert database.paths() == ["c/1"]


class TestTriggers:
    def watched(self, database: MemoryDatabase) -> list[Change]:
        changes: list[Change] = []
        database.on_change(changes.append)
        return changes

    def test_a_create_an_update_and_a_delete_bring_the_states_before_and_after(
        self, database: MemoryDatabase
    ) -> None:
        changes = self.watched(database)
        created = database.set("c/1", {"n": number(1)})
        updated = database.set("c/1", {"n": number(2)})
        database.delete("c/1")
        events = [DocumentEventData.FromString(change.body) for change in changes]
        assert [(one.HasField("value"), one.HasField("old_value")) for one in events] == [
            (True, False),
            (True, True),
            (False, True),
        ]
        states = [events[0].value, events[1].old_value, events[1].value, events[2].old_value]
        assert [state.name for state in states] == [database.prefix + "c/1"] * 4
        assert [micros(state.create_time) for state in states] == [created] * 4
        assert [micros(state.update_time) for state in states] == [created, created, updated, updated]
        assert [state.fields["n"].integer_value for state in states] == [1, 1, 2, 2]

    def test_the_headers_are_eventarcs(self, database: MemoryDatabase) -> None:
        changes = self.watched(database)
        database.set("c/1/d/é", {})
        assert changes[0].headers == {
            "ce-specversion": "1.0",
            "ce-type": "google.cloud.firestore.document.v1.written",
            "ce-id": "p-app-eu-1",
            "ce-source": "//firestore.googleapis.com/projects/p/databases/app-eu",
            "ce-subject": "documents/c/1/d/é",
            "ce-time": "2027-01-15T08:00:00.000000Z",
            "ce-location": "memory",
            "ce-project": "p",
            "ce-database": "app-eu",
            "ce-namespace": "(default)",
            "ce-document": "c/1/d/é",
            "content-type": "application/protobuf",
        }

    @pytest.mark.parametrize(
        ("whole", "text"), [(False, "2027-01-15T08:00:00.123456Z"), (True, "2027-01-15T08:00:00Z")]
    )
    def test_the_time_of_a_delete_is_exact_or_to_the_second(self, clock: Clock, whole: bool, text: str) -> None:
        database = MemoryDatabase("p", "app-eu", now=clock, whole_second_times=whole)
        database.set("c/1", {})
        changes = self.watched(database)
        clock.pass_(0.123456)
        database.delete("c/1")
        assert changes[0].headers["ce-time"] == text

    def test_a_commit_brings_one_event_for_each_document_that_changed(self, database: MemoryDatabase) -> None:
        database.set("c/same", {"n": number(1)})
        changes = self.watched(database)
        name = database.prefix
        database.commit(
            [
                Write(update=Document(name=name + "c/1")),
                Write(update=Document(name=name + "c/1", fields={"n": number(1)})),
                Write(update=Document(name=name + "c/2")),
                Write(delete=name + "c/2"),
                Write(delete=name + "c/missing"),
                Write(update=Document(name=name + "c/same", fields={"n": number(1)})),
                Write(update=Document(name=name + "c/3")),
            ],
            timeout=0,
        )
        assert sorted(change.headers["ce-document"] for change in changes) == ["c/1", "c/3"]
        assert len({change.headers["ce-id"] for change in changes}) == 2

    def test_a_write_that_failed_brings_none(self, database: MemoryDatabase) -> None:
        changes = self.watched(database)
        missing = Write(update=Document(name=database.prefix + "c/1"), current_document={"exists": True})
        with pytest.raises(ConditionFailed):
            database.commit([Write(update=Document(name=database.prefix + "c/2")), missing], timeout=0)
        database.batch_write([missing], timeout=0)
        assert changes == []

    def test_unchanged_writes_fire_too_where_the_emulator_is_imitated(self, clock: Clock) -> None:
        database = MemoryDatabase("p", "app-eu", now=clock, unchanged_fires=True)
        time = database.set("c/1", {"n": number(1)})
        changes = self.watched(database)
        database.set("c/1", {"n": number(1)})
        database.delete("c/missing")
        event = DocumentEventData.FromString(changes[0].body)
        assert event.value == event.old_value
        assert micros(event.value.update_time) == time
        assert changes[1].body == b""

    def test_a_listener_may_write_to_the_database_that_called_it(self, database: MemoryDatabase) -> None:
        def copy(change: Change) -> None:
            path = change.headers["ce-document"]
            if path.startswith("c/"):
                database.set("copy/" + path.removeprefix("c/"), {})

        database.on_change(copy)
        database.set("c/1", {})
        assert database.paths() == ["c/1", "copy/1"]


def test_threads_that_race_on_one_update_time_let_exactly_one_through(database: MemoryDatabase) -> None:
    threads_count, rounds = 4, 50
    database.set("c/1", {"n": number(0)})
    won: list[int] = []

    def race() -> None:
        while True:
            [found] = database.read(["c/1"], timeout=0)
            value = found.document.fields["n"].integer_value
            if value >= rounds:
                return
            write = Write(update=Document(name=database.prefix + "c/1", fields={"n": number(value + 1)}))
            set_micros(write.current_document.update_time, found.update_time)
            if database.batch_write([write], timeout=0)[0].code == 0:
                won.append(value)

    threads = [threading.Thread(target=race, daemon=True) for _ in range(threads_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(won) == list(range(rounds))


PATHS = st.sampled_from(["c/1", "c/2", "d/1"])
FIELDS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=2)


class Writes(RuleBasedStateMachine):
    """Random writes to the database and to a dictionary that holds what should be there.

    The dictionary's documents are (fields, create time, update time); times are taken from the answers, whose
    order is checked apart.
    """

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.database = MemoryDatabase("p", "d", now=self.clock)
        self.model: dict[str, tuple[dict[str, int], int, int]] = {}
        self.last = 0
        self.seen: dict[str, tuple[dict[str, int], int] | None] = {}
        self.database.on_change(self.notice)

    def notice(self, change: Change) -> None:
        event = DocumentEventData.FromString(change.body)
        path = change.headers["ce-document"]
        assert self.seen.get(path) == self.content(event, "old_value")
        self.seen[path] = self.content(event, "value")

    def content(self, event: Any, side: str) -> tuple[dict[str, int], int] | None:
        if not event.HasField(side):
            return None
        document = getattr(event, side)
        return self.plain(document), micros(document.update_time)

    def plain(self, document: Any) -> dict[str, int]:
        return {name: value.integer_value for name, value in document.fields.items()}

    @rule(seconds=st.integers(-2, 2))
    def time_passes(self, seconds: int) -> None:
        self.clock.pass_(seconds)

    @rule(
        path=PATHS,
        fields=FIELDS,
        mask=st.none() | st.lists(st.sampled_from("abc"), max_size=2),
        condition=st.sampled_from(["none", "exists", "missing", "current", "stale"]),
        atomic=st.booleans(),
    )
    def update(
        self, path: str, fields: dict[str, int], mask: list[str] | None, condition: str, atomic: bool
    ) -> None:
        values = {name: number(value) for name, value in fields.items()}
        write = Write(update=Document(name=self.database.prefix + path, fields=values))
        if mask is not None:
            write.update_mask.SetInParent()
            write.update_mask.field_paths.extend(mask)
        if not self.apply(write, path, condition, atomic):
            return
        old, created, updated = self.model.get(path, ({}, self.last, 0))
        new = fields if mask is None else self.masked(old, fields, mask)
        unchanged = path in self.model and old == new
        self.model[path] = (new, created, updated if unchanged else self.last)

    @rule(
        path=PATHS,
        condition=st.sampled_from(["none", "exists", "missing", "current", "stale"]),
        atomic=st.booleans(),
    )
    def delete(self, path: str, condition: str, atomic: bool) -> None:
        if self.apply(Write(delete=self.database.prefix + path), path, condition, atomic):
            self.model.pop(path, None)

    def masked(self, old: dict[str, int], new: dict[str, int], mask: Sequence[str]) -> dict[str, int]:
        kept = {name: value for name, value in old.items() if name not in mask}
        return kept | {name: value for name, value in new.items() if name in mask}

    def apply(self, write: Any, path: str, condition: str, atomic: bool) -> bool:
        """Send one write under a condition that holds or not; returns whether it landed, as it must."""
        there = path in self.model
        current = self.model[path][2] if there else START - SECOND * 1_000
        match condition:
            case "exists" | "missing":
                write.current_document.exists = condition == "exists"
            case "current" | "stale":
                set_micros(write.current_document.update_time, current - (condition == "stale"))
        holds = {"none": True, "exists": there, "missing": not there, "current": there, "stale": False}[
            condition
        ]
        try:
            landed = self.send(write, atomic)
        except ConditionFailed:
            landed = False
        assert landed == holds
        return landed

    def send(self, write: Any, atomic: bool) -> bool:
        if atomic:
            time = self.database.commit([write], timeout=0)
            assert time > self.last
            self.last = time
            return True
        [written] = self.database.batch_write([write], timeout=0)
        stored = self.database.get((write.delete or write.update.name)[len(self.database.prefix) :])
        if written.code == 0 and stored is not None:
            assert written.commit_time == micros(stored.update_time)
            self.last = max(self.last, written.commit_time)
        return written.code == 0

    @invariant()
    def the_database_holds_what_the_model_holds(self) -> None:
        found = self.database.read(sorted(self.model), timeout=0)
        assert self.database.paths() == sorted(self.model)
        for one in found:
            document = one.document
            state = (self.plain(document), micros(document.create_time), one.update_time)
            assert state == self.model[one.path]
            assert one.read_time >= self.last
            assert self.seen[one.path] == (state[0], state[2])


TestWrites = Writes.TestCase
TestWrites.settings = settings(max_examples=200, stateful_step_count=30)


class TestLeases:
    @pytest.fixture
    def topic(self, clock: Clock) -> MemoryTopic:
        return MemoryTopic(now=clock)

    @pytest.fixture
    def subscription(self, topic: MemoryTopic) -> MemorySubscription:
        return topic.subscription("changes-eu", ack_deadline_s=60)

    def publish(self, topic: MemoryTopic, count: int) -> list[str]:
        return [topic.publish(Message(b"%d" % n)) for n in range(count)]

    def pull(self, subscription: MemorySubscription, limit: int = 100) -> list[str]:
        return [one.id for one in subscription.pull(limit, timeout=0)]

    def test_ids_are_sequential_and_so_is_the_order(
        self, topic: MemoryTopic, subscription: MemorySubscription
    ) -> None:
        assert self.publish(topic, 3) == ["1", "2", "3"]
        assert self.pull(subscription, 2) == ["1", "2"]
        assert self.pull(subscription, 2) == ["3"]
        assert self.pull(subscription) == []

    def test_a_lease_ends_when_the_given_clock_says_so(
        self, topic: MemoryTopic, subscription: MemorySubscription, clock: Clock
    ) -> None:
        self.publish(topic, 1)
        [first] = subscription.pull(10, timeout=0)
        clock.pass_(59.999999)
        assert self.pull(subscription) == []
        clock.pass_(0.000001)
        [second] = subscription.pull(10, timeout=0)
        assert (second.id, subscription.attempts(second.id)) == (first.id, 2)
        subscription.acknowledge([first.ack_id])
        assert subscription.backlog == 1, "an acknowledgement of an earlier delivery came too late"
        subscription.acknowledge([second.ack_id])
        assert (subscription.backlog, subscription.attempts(first.id)) == (0, 0)

    def test_an_extension_moves_the_end_both_ways_and_zero_releases(
        self, topic: MemoryTopic, subscription: MemorySubscription, clock: Clock
    ) -> None:
        self.publish(topic, 3)
        longer, shorter, released = subscription.pull(10, timeout=0)
        subscription.extend([longer.ack_id], 120)
        subscription.extend([shorter.ack_id], 10)
        subscription.extend([released.ack_id], 0)
        assert self.pull(subscription) == [released.id]
        clock.pass_(10)
        assert self.pull(subscription) == [shorter.id]
        clock.pass_(109)
        assert self.pull(subscription) == [released.id, shorter.id]
        clock.pass_(1)
        assert self.pull(subscription) == [longer.id]

    def test_what_was_published_before_a_subscription_does_not_reach_it(self, topic: MemoryTopic) -> None:
        self.publish(topic, 1)
        late = topic.subscription("late")
        assert self.pull(late) == []

    def test_a_name_is_one_subscription_and_each_gets_every_message(self, topic: MemoryTopic) -> None:
        one, other = topic.subscription("a"), topic.subscription("b")
        assert topic.subscription("a") is one
        self.publish(topic, 2)
        assert self.pull(one) == self.pull(other) == ["1", "2"]

    def test_a_filter_keeps_out_what_it_does_not_let_through(self, topic: MemoryTopic) -> None:
        subscription = topic.subscription("us", filter=lambda attributes: attributes.get("replica") != "us")
        topic.publish(Message(b"own", {"replica": "us"}))
        topic.publish(Message(b"other", {"replica": "eu"}))
        assert [one.message.data for one in subscription.pull(10, timeout=0)] == [b"other"]
        assert subscription.backlog == 1

    def test_retention_drops_the_oldest_by_age_and_by_count_and_counts_them(
        self, topic: MemoryTopic, clock: Clock
    ) -> None:
        subscription = topic.subscription("a", retention_s=100, retained_max=3)
        self.publish(topic, 5)
        assert (subscription.backlog, subscription.dropped) == (3, 2)
        assert self.pull(subscription, 1) == ["3"]
        clock.pass_(101)
        assert self.pull(subscription) == []
        assert (subscription.backlog, subscription.dropped) == (0, 5)

    def test_order_may_shuffle_repeat_and_hold_back(self, clock: Clock) -> None:
        def backwards_twice_without_the_first(ready: list[Retained]) -> list[Retained]:
            chosen = [one for one in reversed(ready) if one.id != "1"]
            return chosen + chosen

        topic = MemoryTopic(now=clock, order=backwards_twice_without_the_first)
        subscription = topic.subscription("a")
        self.publish(topic, 3)
        received = subscription.pull(10, timeout=0)
        assert [one.id for one in received] == ["3", "2", "3", "2"]
        assert len({one.ack_id for one in received}) == 4
        subscription.acknowledge([received[0].ack_id, received[1].ack_id])
        assert subscription.backlog == 1
        clock.pass_(60)
        assert subscription.pull(10, timeout=0) == [], "what any delivery acknowledged is done"

    def test_what_the_publisher_does_to_its_attributes_does_not_reach_a_receiver(
        self, topic: MemoryTopic, subscription: MemorySubscription
    ) -> None:
        attributes = {"a": "b"}
        topic.publish(Message(b"", attributes))
        attributes["a"] = "changed"
        assert subscription.pull(1, timeout=0)[0].message.attributes == {"a": "b"}

    def test_a_waiting_pull_wakes_when_another_thread_publishes(
        self, topic: MemoryTopic, subscription: MemorySubscription
    ) -> None:
        pulled: list[str] = []
        waiting = threading.Thread(
            target=lambda: pulled.extend(one.id for one in subscription.pull(1, timeout=PATIENCE_S)),
            daemon=True,
        )
        waiting.start()
        topic.publish(Message(b"x"))
        waiting.join(10)
        assert not waiting.is_alive()
        assert pulled == ["1"]

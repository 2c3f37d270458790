"""The analytics worker on the memory adapters: what is held, written, refused, released, and counted."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from replication.adapters.memory import MemoryDatabase
from replication.adapters.memory_pubsub import MemoryTopic
from replication.analytics.job import Job
from replication.analytics.packing import events_in
from replication.configuration.analytics import Analytics
from replication.documents.wire import MICROS
from replication.errors import ConfigError, Refused, Transient
from replication.ports import Message, Publisher, Written
from tests.support.analytics import TYPES, Counts, message, schema, settings, stored, swipe, view
from tests.support.analytics_worker import HandWorker, Impatient
from tests.support.polling import PATIENCE_S, eventually
from workers.analytics.clients import AnalyticsClients
from workers.analytics.command import command
from workers.analytics.worker import AnalyticsWorker
from workers.config import ConfigFile

Change = Callable[[Sequence[Any]], list[Written] | None]


class Database(MemoryDatabase):
    """A memory database whose writes `change` can hold up, fail, or answer itself."""

    def __init__(self) -> None:
        super().__init__("p", "eu", now=lambda: time.time_ns() // 1_000)
        self.change: Change = lambda _: None

    def batch_write(self, writes: Sequence[Any], *, timeout: float) -> list[Written]:
        answer = self.change(writes)
        return super().batch_write(writes, timeout=timeout) if answer is None else answer


class Site:
    """One worker's surroundings. `clock` is the subscription's, in seconds; it stands still."""

    def __init__(self, given: Analytics) -> None:
        self.clock = 1_800_000_000.0
        now = lambda: int(self.clock * MICROS)  # noqa: E731
        self.settings = given
        self.topic, self.letters = MemoryTopic(now=now), MemoryTopic(now=now)
        self.subscription = self.topic.subscription("analytics-eu", ack_deadline_s=60)
        self.buried = self.letters.subscription("all")
        self.database = Database()
        self.telemetry = Counts()
        self.clients = AnalyticsClients(
            self.database, self.subscription, self.letters.publisher(), None, self.telemetry
        )
        self.job = Job("eu", given, schema(given), None, "w")

    def publish(self, *bodies: dict[str, Any], **attributes: str) -> None:
        for body in bodies:
            self.topic.publish(message(body, **attributes))

    def ids(self) -> list[str]:
        """The ids stored, raw copies included."""
        return sorted(event.body["id"] for one in stored(self.database) for event in events_in(one))

    def reasons(self) -> list[str]:
        return [one.message.attributes["reason"] for one in self.buried.pull(1_000, timeout=0)]


class Hand(Site):
    """A worker without threads: the test pulls and flushes."""

    def __init__(self, given: Analytics, clients: dict[str, Any] | None = None) -> None:
        super().__init__(given)
        self.stop = Impatient()
        for name, client in (clients or {}).items():
            object.__setattr__(self.clients, name, client)
        self.worker = HandWorker(self.job, self.clients, self.stop, now=lambda: self.clock)

    @property
    def depth(self) -> int:
        """Messages in the buffer."""
        return self.worker.buffer.level.depth

    def pull(self) -> None:
        self.worker.take(self.subscription.pull(1_000, timeout=0))

    def flush(self) -> None:
        self.worker.flush()

    def cycle(self) -> None:
        self.pull()
        self.flush()


def test_wrong_events_go_to_the_dead_letters_and_do_not_delay_the_others() -> None:
    site = Hand(settings())
    site.publish(swipe("a"), {**swipe("b"), "user": 5}, view("c"))
    site.pull()
    assert site.reasons() == ["invalid"]
    assert (site.subscription.backlog, site.depth) == (2, 2)
    site.flush()
    assert site.ids() == ["a", "c"]
    assert site.subscription.backlog == 0
    assert site.telemetry.by_type["dead_lettered", "swipe"] == 1
    assert site.telemetry.sums["received"] == site.telemetry.settled == 3


def test_an_event_the_database_refuses_goes_alone_and_its_copies_get_their_own_try() -> None:
    site = Hand(settings(layout="per-event"))
    nested = {"target": "t", "session": "s", "x": [[1]]}
    site.publish(*(swipe(f"e{number}") for number in range(9)), swipe("bad", payload=nested))
    site.publish(swipe("good", payload={"target": "t", "session": "s"}))
    site.cycle()
    assert site.reasons() == ["invalid"]
    assert site.ids() == [f"e{number}" for number in range(9)]
    site.cycle()
    assert "good" in site.ids()
    assert site.subscription.backlog == 0
    assert site.telemetry.sums["received"] == site.telemetry.settled == 12


def test_a_number_too_large_for_firestore_is_a_dead_letter() -> None:
    site = Hand(settings(layout="per-event"))
    site.publish(view("big", payload={"page": "p", "millis": 1, "x": 2**63}), view("fine"))
    site.cycle()
    assert (site.reasons(), site.ids(), site.subscription.backlog) == (["invalid"], ["fine"], 0)


def test_a_pack_the_database_refuses_is_halved_until_the_event_at_fault_stands_alone() -> None:
    site = Hand(settings())

    def refuse(writes: Sequence[Any]) -> None:
        if any(event.body["id"] == "poison" for write in writes for event in events_in(write.update)):
            raise Refused("no")

    site.database.change = refuse
    site.publish(view("poison"), *(view(f"e{number}") for number in range(9)))
    site.cycle()
    assert site.reasons() == ["invalid"]
    assert site.ids() == [f"e{number}" for number in range(9)]
    assert site.telemetry.sums["received"] == site.telemetry.settled == 10


def test_a_write_without_an_answer_is_tried_until_there_is_one() -> None:
    site = Hand(settings())
    failures = iter([Transient("away"), Transient("away"), None])

    def fail(_: Sequence[Any]) -> None:
        if error := next(failures):
            raise error

    site.database.change = fail
    site.publish(view("a"))
    site.cycle()
    assert (site.ids(), site.subscription.backlog) == (["a"], 0)
    assert site.telemetry.sums["retries"] == 2


def test_a_single_write_the_database_cannot_take_now_is_tried_again() -> None:
    site = Hand(settings(layout="per-event"))
    answers = iter([[Written(14, 0, "away"), Written(14, 0, "away")], None])
    site.database.change = lambda _: next(answers)
    site.publish(view("a"), view("b"))
    site.cycle()
    assert (site.ids(), site.telemetry.sums["written"]) == (["a", "b"], 2)


def test_a_fault_of_the_program_releases_what_it_held_and_the_events_come_again() -> None:
    site = Hand(settings())
    faults = iter([ValueError("a bug"), None])

    def fail(_: Sequence[Any]) -> None:
        if error := next(faults):
            raise error

    site.database.change = fail
    site.publish(view("a"))
    site.cycle()
    assert (site.ids(), site.subscription.backlog, site.depth) == ([], 1, 0)
    site.cycle()
    assert (site.ids(), site.subscription.backlog) == (["a"], 0)
    assert site.telemetry.sums["released"] == 1


def test_what_is_held_for_long_is_extended_and_nobody_else_gets_it() -> None:
    site = Hand(settings())
    site.publish(view("a"))
    site.pull()
    for _ in range(8):
        site.clock += 20
        site.worker.deliveries.extend()
        assert site.subscription.pull(10, timeout=0) == []
    site.clock += 61
    assert len(site.subscription.pull(10, timeout=0)) == 1


def test_another_regions_events_are_left_to_its_own_workers() -> None:
    site = Hand(settings())
    site.publish(view("a"), region="us")
    site.cycle()
    assert (site.ids(), site.subscription.backlog) == ([], 0)
    assert (site.telemetry.sums["foreign"], site.telemetry.sums["received"]) == (1, 0)


def test_throttled_events_are_counted_by_type_and_acknowledged_at_once() -> None:
    limited = {**TYPES, "page_view": {**TYPES["page_view"], "throttle": {"rate": 1.0, "burst": 2}}}
    site = Hand(settings(types=limited))
    site.publish(*(view(f"e{number}") for number in range(5)), swipe("s"))
    site.pull()
    assert site.telemetry.by_type["throttled", "page_view"] == 3
    assert site.subscription.backlog == 3
    site.flush()
    assert site.ids() == ["e0", "e1", "s"]
    assert site.telemetry.sums["received"] == site.telemetry.settled
    assert site.telemetry.sums["writes_saved"] == 6 - len(list(stored(site.database)))


def test_duplicates_are_counted_and_cost_no_write() -> None:
    site = Hand(settings(layout="per-event"))
    site.publish(swipe("a"), swipe("a"))
    site.cycle()
    site.publish(swipe("a"))
    site.cycle()
    sums = site.telemetry.sums
    assert (sums["written"], sums["duplicate"], sums["writes"], sums["writes_saved"]) == (1, 2, 1, 2)


class Failing(Publisher):
    """Fails as it is told, then publishes."""

    def __init__(self, errors: Iterator[Exception]) -> None:
        self.errors = errors
        self.sent: list[Message] = []

    def submit(self, message: Message) -> "Future[str]":
        future: Future[str] = Future()
        error = next(self.errors, None)
        if error is None:
            self.sent.append(message)
            future.set_result("id")
        else:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing is open."""


def test_a_dead_letter_is_tried_until_pubsub_has_it() -> None:
    publisher = Failing(iter([Transient("away"), Transient("away")]))
    site = Hand(settings(), {"dead_letters": publisher})
    site.publish({**view("a"), "user": 5})
    site.pull()
    assert (len(publisher.sent), site.subscription.backlog) == (1, 0)
    assert site.telemetry.sums["dead_lettered"] == 1


def test_a_dead_letter_that_pubsub_refuses_is_not_acknowledged() -> None:
    site = Hand(settings(), {"dead_letters": Failing(iter([Refused("too large")]))})
    site.publish({**view("a"), "user": 5})
    site.pull()
    assert (site.subscription.backlog, site.telemetry.sums["released"]) == (1, 1)
    assert site.telemetry.sums["received"] == site.telemetry.settled


def test_a_worker_that_stops_releases_what_it_cannot_write() -> None:
    site = Hand(settings())
    site.publish(view("a"), view("b"))
    site.pull()

    def stop(_: Sequence[Any]) -> None:
        site.stop.set()
        raise Transient("away")

    site.database.change = stop
    site.flush()
    assert (site.subscription.backlog, site.depth) == (2, 0)
    assert len(site.subscription.pull(10, timeout=0)) == 2, "at once, not after the deadline"
    assert site.telemetry.sums["released"] == 2


class Threads(Site):
    """A worker with its threads."""

    def __init__(self, given: Analytics) -> None:
        super().__init__(given)
        self.worker = AnalyticsWorker(self.job, self.clients, threads=3, max_messages=50)

    def __enter__(self) -> "Threads":
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop()
        self.worker.join()


def test_at_the_signal_to_stop_everything_held_is_written() -> None:
    with Threads(settings(flush={"every": "60s"})) as site:
        site.publish(*(view(f"e{number:03}") for number in range(200)))
        eventually(lambda: site.telemetry.sums["received"] == 200)
        assert (site.ids(), site.subscription.backlog) == ([], 200)
    assert site.ids() == [f"e{number:03}" for number in range(200)]
    assert site.subscription.backlog == 0
    assert site.telemetry.sums["received"] == site.telemetry.settled
    assert site.telemetry.gauges["firefleet.analytics.buffer.depth"] == 0
    assert threading.active_count() < 10


def test_a_stopping_worker_gives_a_dead_database_up() -> None:
    def away(_: Sequence[Any]) -> None:
        raise Transient("away")

    with Threads(settings(flush={"every": "1s"})) as site:
        site.database.change = away
        site.publish(*(view(f"e{number}") for number in range(20)))
        eventually(lambda: site.telemetry.sums["retries"] > 2)
        assert site.worker.progress.unreachable() == "away"
        site.worker.stop()
        site.worker.join()
    assert site.subscription.backlog == 20
    # A pull that was under way may bring some of them again, to be released again.
    assert site.telemetry.sums["received"] == site.telemetry.sums["released"] >= 20


def test_at_the_bound_the_worker_stops_pulling_and_goes_on_when_there_is_room() -> None:
    gate = threading.Event()

    def wait(_: Sequence[Any]) -> None:
        assert gate.wait(PATIENCE_S)

    given = settings(flush={"every": "1s", "events": 50}, buffer={"events": 120})
    with Threads(given) as site:
        site.database.change = wait
        site.publish(*(view(f"e{number:03}") for number in range(500)))
        eventually(lambda: site.telemetry.sums["received"] == 120)
        # The keeper reports every second, in which pullers with room would have taken all there is.
        eventually(lambda: site.telemetry.gauges.get("firefleet.analytics.buffer.depth") == 120)
        assert site.telemetry.sums["received"] == 120
        assert site.subscription.backlog == 500
        gate.set()
        eventually(lambda: site.subscription.backlog == 0)
    assert len(site.ids()) == 500
    assert site.telemetry.sums["written"] == 500


def test_a_flush_is_on_the_beat_and_enough_events_bring_it_forward() -> None:
    with Threads(settings(flush={"every": "60s", "events": 10}, buffer={"events": 100})) as site:
        site.publish(*(view(f"e{number}") for number in range(10)))
        eventually(lambda: len(site.ids()) == 10)
    sizes = [value for name, value in site.telemetry.measured if name.endswith("flush.size")]
    assert sizes == [10]


def config(tmp_path: Path, analytics: object) -> ConfigFile:
    path = tmp_path / "fleet.yaml"
    section = {
        "project": "shop",
        "topic": "changes",
        "pubsub_emulator_host": "127.0.0.1:1",
        "replicas": {"eu": {"database": "app-eu", "location": "europe-west1", "emulator_host": "127.0.0.1:1"}},
        "collections": [{"match": "{document=**}", "mode": "local"}],
        "analytics": analytics,
    }
    path.write_bytes(orjson.dumps(section))  # JSON is YAML
    return ConfigFile(path, {})


def test_the_command_needs_a_replica() -> None:
    result = CliRunner().invoke(command, ["run"], obj=None)
    assert (result.exit_code, "--replica" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("analytics", "text"),
    [
        (None, "analytics: is missing; add `analytics:`"),
        ({"types": {"x": {"payload": {}, "key": ["y"]}}}, "analytics.types.x.key: 'y' is not a required field"),
        (
            {"types": {"x": {"payload": {}}}, "warehouse": {"topic": "warehouse", "key_env": "NO_KEY"}},
            ":1: analytics.warehouse.key_env: the variable NO_KEY is not set; set one key",
        ),
    ],
)
def test_a_mistake_in_the_section_names_the_file_and_the_key(
    tmp_path: Path, analytics: object, text: str
) -> None:
    result = CliRunner().invoke(command, ["run", "--replica", "eu"], obj=config(tmp_path, analytics))
    assert isinstance(result.exception, ConfigError)
    assert text in str(result.exception)


def test_a_replica_that_is_none_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["run", "--replica", "mars"], obj=config(tmp_path, {"types": TYPES}))
    assert isinstance(result.exception, ConfigError)
    assert "choose one of eu" in str(result.exception)


@pytest.mark.parametrize("time", ["yesterday", "2027-01-15", "2027-01-15T08:00:00"])
def test_reading_takes_only_times_with_a_zone(time: str) -> None:
    result = CliRunner().invoke(command, ["read", "--replica", "eu", "--since", time], obj=None)
    assert (result.exit_code, "write one such as 2026" in result.output) == (2, True)

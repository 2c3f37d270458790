"""`firefleet probe`: what arrives is timed, what does not has the right cause, and nothing is left behind."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from replication.adapters.memory import Change, MemoryDatabase, MemoryTopic
from replication.changes.capture import ReadTombstone, capture, run_capture
from replication.errors import ConfigError, Transient
from replication.fleet.addressing import addressed
from replication.fleet.model import Fleet, Mode, Replica, Rule, Target
from replication.ports import Found, Message
from replication.probe import Cause, Evidence, check_collection, missing, pairs
from tests.support.polling import eventually
from workers.cli import main
from workers.local.meters import Meters
from workers.probe.probing import Probe, Round
from workers.replicate.clients import Clients
from workers.replicate.worker import Worker
from workers.runtime.interrupt import stopping


def fleet_of(*replicas: str, rules: tuple[Rule, ...] = (Rule(match="{document=**}"),)) -> Fleet:
    return Fleet(
        project="p",
        topic="changes",
        replicas={
            name: Replica(id=name, project="p", database=f"app-{name}", location="europe-west1")
            for name in replicas
        },
        rules=rules,
    )


THREE = fleet_of("eu", "us", "apac")
TWO = fleet_of("eu", "us")


class Unreachable(MemoryDatabase):
    """A database that no call reaches."""

    def read(self, paths: object, *, timeout: float) -> list[Found]:
        raise Transient("no answer from the database")

    def commit(self, writes: object, *, timeout: float) -> int:
        raise Transient("no answer from the database")


@dataclass
class Running:
    fleet: Fleet
    databases: dict[str, MemoryDatabase]
    stop: threading.Event

    def probe(self, *chosen: str, collection: str = "_firefleet_probe") -> Probe:
        return Probe(
            self.fleet,
            self.databases,
            pairs(self.fleet, chosen),
            collection=collection,
            run="test",
            stop=self.stop,
        )

    def documents(self) -> dict[str, list[str]]:
        """The documents of the probes, by replica."""
        return {
            name: [
                path
                for document in database.documents()
                if (path := document.name.removeprefix(database.prefix)).startswith("_firefleet_probe/")
            ]
            for name, database in self.databases.items()
        }


def now() -> int:
    return time.time_ns() // 1000


@contextmanager
def running(
    fleet: Fleet,
    *,
    triggers: tuple[str, ...] | None = None,
    workers: tuple[str, ...] | None = None,
    unreachable: tuple[str, ...] = (),
) -> Iterator[Running]:
    """The fleet in memory, with the triggers and the workers of these replicas only; by default all."""
    topic = MemoryTopic(now=now)
    databases: dict[str, MemoryDatabase] = {
        name: (Unreachable if name in unreachable else MemoryDatabase)("p", f"app-{name}", now=now)
        for name in fleet.replicas
    }

    def tombstone(wanted: ReadTombstone) -> Found:
        return databases[wanted.replica].read([wanted.path], timeout=1)[0]

    def captured(change: Change) -> None:
        result = run_capture(capture(change.body, change.headers, fleet), tombstone)
        if isinstance(result, Message):
            topic.publish(result)

    for name in triggers if triggers is not None else tuple(fleet.replicas):
        databases[name].on_change(captured)
    with ExitStack() as stack:
        for name in workers if workers is not None else tuple(fleet.replicas):
            subscription = topic.subscription(name, filter=partial(addressed, replica=name))
            clients = Clients(
                databases, subscription, topic.publisher(), MemoryTopic(now=now).publisher(), Meters()
            )
            worker = Worker(Target(fleet, fleet.replica(name)), clients, threads=1, max_messages=10)
            worker.start()
            stack.callback(worker.join)
            stack.callback(worker.stop)
        yield Running(fleet, databases, threading.Event())


def causes(found: Round) -> dict[tuple[str, str], Cause]:
    return {pair: each.cause for pair, each in found.missing.items()}


def test_in_a_healthy_fleet_every_pair_has_a_lag_and_nothing_is_left() -> None:
    with running(THREE) as fleet:
        probe = fleet.probe()
        found = probe.round(timeout=60)
        assert found.ok
        assert set(found.lags_us) == set(pairs(THREE))
        assert all(lag >= 0 for lag in found.lags_us.values())
        assert probe.clean() == {}
        assert eventually(lambda: not any(fleet.documents().values()), timeout=60)


def test_rounds_update_one_document_a_source_and_each_waits_for_its_own_change() -> None:
    with running(TWO) as fleet:
        probe = fleet.probe()
        for _ in range(3):
            assert set(probe.round(timeout=60).lags_us) == set(pairs(TWO))
        assert all(len(paths) == 2 for paths in fleet.documents().values())
        probe.clean()


def judged(fleet: Fleet, *arrived: tuple[str, str], recorded: tuple[str, ...] = ()) -> dict[object, Cause]:
    evidence = Evidence(
        lags_us=dict.fromkeys(arrived, 1), unwritten={}, unread={}, recorded=frozenset(recorded)
    )
    return {pair: each.cause for pair, each in missing(fleet, pairs(fleet), evidence).items()}


def test_a_missing_trigger_is_told_from_a_stopped_worker() -> None:
    not_from_us = [pair for pair in pairs(THREE) if pair[0] != "us"]
    assert judged(THREE, *not_from_us) == {("us", "eu"): Cause.CAPTURE, ("us", "apac"): Cause.CAPTURE}
    not_to_us = [pair for pair in pairs(THREE) if pair[1] != "us"]
    assert judged(THREE, *not_to_us) == {("eu", "us"): Cause.WORKER, ("apac", "us"): Cause.WORKER}
    found = missing(THREE, [("us", "eu")], Evidence(lags_us={("apac", "eu"): 1}, unwritten={}, unread={}))
    assert "the Eventarc trigger of database app-us is missing" in found["us", "eu"].text
    found = missing(THREE, [("us", "eu")], Evidence(lags_us={("us", "apac"): 1}, unwritten={}, unread={}))
    assert found["us", "eu"].remedy == "firefleet replicate --replica eu"


def test_a_late_change_is_told_from_a_broken_part() -> None:
    all_but_one = [pair for pair in pairs(THREE) if pair != ("eu", "us")]
    assert judged(THREE, *all_but_one) == {("eu", "us"): Cause.LATE}


def test_one_pair_alone_is_judged_by_what_the_replicas_record_of_their_own() -> None:
    there = ("us", "eu")
    assert judged(TWO, there) == {("eu", "us"): Cause.EITHER}
    assert judged(TWO, there, recorded=("eu",)) == {("eu", "us"): Cause.WORKER}
    assert judged(TWO, there, recorded=("us",)) == {("eu", "us"): Cause.CAPTURE}
    assert judged(TWO, there, recorded=("eu", "us")) == {("eu", "us"): Cause.LATE}


def test_of_two_replicas_the_ones_own_tombstone_tells_which_part_fails() -> None:
    """One pair alone says nothing: eu's trigger, or us's worker. That eu's delete came back to eu does."""
    with running(TWO, workers=("eu",)) as fleet:
        probe = fleet.probe()
        assert causes(probe.round(timeout=6)) == {("eu", "us"): Cause.WORKER}
        probe.clean()


def test_where_nothing_moves_at_all_both_ends_are_named() -> None:
    with running(TWO, triggers=()) as fleet:
        probe = fleet.probe()
        found = probe.round(timeout=0.5)
        assert set(causes(found).values()) == {Cause.EITHER}
        assert "capture, and the worker of us" in found.missing["eu", "us"].text
        probe.clean()
        assert not any(fleet.documents().values())


def test_an_unreachable_database_is_named_with_its_error() -> None:
    with running(TWO, unreachable=("us",)) as fleet:
        probe = fleet.probe()
        found = probe.round(timeout=0.5)
        assert causes(found) == {("us", "eu"): Cause.WRITE, ("eu", "us"): Cause.READ}
        assert "no answer from the database" in found.missing["eu", "us"].text
        assert list(probe.clean()) == ["us"]


def test_a_replica_named_limits_the_probe_to_its_pairs() -> None:
    assert pairs(THREE, ("us",)) == [("eu", "us"), ("us", "eu"), ("us", "apac"), ("apac", "us")]
    with pytest.raises(ConfigError, match="choose one of eu, us, apac"):
        pairs(THREE, ("me",))
    with pytest.raises(ConfigError, match="has one replica"):
        pairs(fleet_of("eu"))


def test_a_collection_that_is_not_replicated_from_everywhere_is_refused_with_the_rule_to_add() -> None:
    local = fleet_of("eu", "us", rules=(Rule(match="orders/{id}"), Rule(match="{d=**}", mode=Mode.LOCAL)))
    with pytest.raises(ConfigError, match=re.escape('add {match: "_firefleet_probe/{probe}", mode')):
        check_collection(local, "_firefleet_probe")
    check_collection(local, "orders")
    with pytest.raises(ConfigError, match="not a top-level collection"):
        check_collection(THREE, "a/b")
    with pytest.raises(ConfigError, match="firefleet's own"):
        check_collection(THREE, "_repl_tombstones")


CONFIG = """\
project: p
topic: changes
pubsub_emulator_host: "127.0.0.1:1"
replicas:
  eu: {database: app-eu, location: europe-west1, emulator_host: "127.0.0.1:1"}
  us: {database: app-us, location: us-central1, emulator_host: "127.0.0.1:1"}
collections:
  - {match: "{document=**}", mode: multi-primary}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(CONFIG)
    return path


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(config), "probe", *arguments])


def test_a_dry_run_says_what_it_would_write_and_connects_to_nothing(config: Path) -> None:
    result = run(config, "--dry-run", "--json")
    assert result.exit_code == 0
    writes = json.loads(result.stdout)["writes"]
    assert [(each["replica"], each["database"], each["read_at"]) for each in writes] == [
        ("eu", "p/app-eu", ["us"]),
        ("us", "p/app-us", ["eu"]),
    ]
    assert all(each["document"].startswith(f"_firefleet_probe/{each['replica']}-") for each in writes)
    assert "WOULD WRITE AT" in run(config, "--dry-run").stdout


def test_what_does_not_answer_ends_in_the_matrix_its_cause_and_exit_1(config: Path) -> None:
    result = run(config, "--timeout", "1s")
    assert result.exit_code == 1, result.output
    assert "FROM  TO eu  TO us\neu    -      none\nus    none   -\n" in result.stdout
    assert "eu to us: cannot write at eu: " in result.stdout
    assert "Try: firefleet check" in result.stdout
    answer = json.loads(run(config, "--timeout", "1s", "--json").stdout)
    assert answer["ok"] is False
    assert {each["cause"] for each in answer["pairs"]} == {"write"}


def test_a_signal_ends_the_waiting_and_the_documents_are_deleted() -> None:
    """SIGINT only sets the event that ends all waiting."""
    with running(TWO, workers=()) as fleet:
        probe = fleet.probe()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(probe.round, timeout=600)
            eventually(lambda: all(fleet.documents().values()), timeout=60)
            fleet.stop.set()
            waiting.result(timeout=60)
        probe.clean()
        assert not any(fleet.documents().values())


def test_the_first_signal_stops_a_probe_and_the_second_is_the_callers() -> None:
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        with stopping() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert eventually(stop.is_set)
            assert caught == []
            os.kill(os.getpid(), signal.SIGINT)
            assert eventually(lambda: caught) == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("arguments", [("--timeout", "soon"), ("--every", "0s"), ("--replica", "me")])
def test_a_wrong_option_exits_2(config: Path, arguments: tuple[str, ...]) -> None:
    result = run(config, *arguments)
    assert result.exit_code == 2
    assert arguments[1].strip("0") in result.stderr

"""`firefleet analytics` as real processes on the real emulators, against the generator's manifest.

Compared by id: what was published (the manifest), what is stored, what the reader gives, what the dead-letter
topic and the warehouse's topic hold, and what the workers' metrics say.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from replication.analytics.packing import events_in
from replication.documents.wire import micros
from tests.conftest import require_emulators
from tests.emulator.analytics_site import (
    TYPES,
    Site,
    batch_of,
    groups_of,
    token_of,
    valid_messages,
)
from tests.support.polling import PATIENCE_S, eventually
from workers.local.emulators import FirestoreEmulator, PubsubEmulator
from workers.local.process import Process

EVENTS = 50_000
PUBLISHERS = 8


@pytest.fixture
def hosts(firestore_emulator: FirestoreEmulator, pubsub_emulator: PubsubEmulator) -> tuple[str, str]:
    return firestore_emulator.host, pubsub_emulator.host


@pytest.mark.parametrize("layout", ["per-event", "packed"])
def test_every_valid_event_is_there_once_although_a_worker_is_killed(
    layout: str, tmp_path: Path, project: str, hosts: tuple[str, str]
) -> None:
    section = {"layout": layout, "flush": {"every": "2s"}, "ack_deadline": "15s"}
    with Site(tmp_path / "killed", project, *hosts, section) as site:
        doomed, survivor = site.worker(), site.worker()
        manifest, last_flush = publish_and_kill(site, doomed)
        groups, wanted = groups_of(manifest), valid_messages(manifest)
        eventually(lambda: site.distinct() >= len(wanted), every=1.0)
        assert survivor.terminate(timeout=PATIENCE_S) == 0
        documents = site.documents()
        if layout == "per-event":
            stored = Counter(groups[one.fields["id"].string_value] for one in documents)
            assert stored == Counter(wanted.keys()), "each is stored once"
        read = site.read()
        assert Counter(groups[one["id"]] for one in read) == Counter(wanted.keys()), "each is read once"
        assert all(one.fields["expire_at"].timestamp_value.seconds > time.time() for one in documents)
        if layout == "packed":
            check_copies(site, manifest, (token_of(doomed), last_flush))
        buried = {one.message.attributes["event"] for one in site.take(site.settings.dead_letter_subscription)}
        assert buried == {line["message"] for line in manifest if not line["valid"]}


def publish_and_kill(site: Site, doomed: Process) -> tuple[list[dict[str, Any]], int]:
    """Publish all events, and kill a worker with -9 half-way; the manifest, and its last flush then stored."""
    published: list[dict[str, Any]] = []
    publishing = threading.Thread(target=lambda: published.extend(site.publish(EVENTS, publishers=PUBLISHERS)))
    publishing.start()
    try:
        eventually(lambda: site.metrics.total("received") > EVENTS / 4)
        doomed.kill()
    finally:
        publishing.join()
    token = token_of(doomed)
    batches = [number for name, number in map(batch_of, site.documents()) if name == token]
    assert batches, "the killed worker had written before"
    return published, max(batches)


def check_copies(site: Site, manifest: list[dict[str, Any]], last: tuple[str, int]) -> None:
    """Events published once and stored twice are only those of the killed worker's last flush."""
    groups, once = (
        groups_of(manifest),
        {group for group, count in valid_messages(manifest).items() if count == 1},
    )
    batches: dict[str, list[tuple[str, int]]] = {}
    held = 0
    for document in site.documents():
        for event in events_in(document):
            held += batch_of(document) == last
            group = groups[event.body["id"]]
            if group in once:
                batches.setdefault(group, []).append(batch_of(document))
    copies = {group: found for group, found in batches.items() if len(found) > 1}
    assert all(len(found) == 2 and last in found for found in copies.values())
    assert len(copies) <= held


@dataclass
class Steady:
    """What a run without faults left."""

    site: Site
    manifest: list[dict[str, Any]]
    documents: list[Any]
    tally: dict[str, int]


@pytest.fixture(scope="module")
def steady(
    tmp_path_factory: pytest.TempPathFactory,
    firestore_emulator: FirestoreEmulator,
    pubsub_emulator: PubsubEmulator,
) -> Iterator[Steady]:
    """Two workers under a steady load for more than three flushes: defaults, throttled, with a warehouse."""
    throttle = {"rate": 1.0, "burst": 50, "sample": 0.1}
    section = {
        "types": {name: {**rules, "throttle": throttle} for name, rules in TYPES.items()},
        "warehouse": {
            "topic": "warehouse",
            "key_env": "ANALYTICS_KEY",
            "users": ["target"],
            "drop": ["ip", "page"],
        },
    }
    folder = tmp_path_factory.mktemp("steady")
    hosts = (firestore_emulator.host, pubsub_emulator.host)
    with Site(folder / "steady", f"steady-{time.time_ns()}", *hosts, section) as site:
        workers = [site.worker(), site.worker()]
        manifest = site.publish(EVENTS, publishers=PUBLISHERS, rate=1_350)
        eventually(lambda: site.metrics.total("received") >= EVENTS)
        assert [worker.terminate(timeout=PATIENCE_S) for worker in workers] == [0, 0]
        [tally] = site.read("--count")
        yield Steady(site, manifest, site.documents(), tally)


def test_while_firestore_stands_still_memory_is_bounded_and_nothing_is_lost(
    request: pytest.FixtureRequest, tmp_path: Path, project: str, pubsub_emulator: PubsubEmulator
) -> None:
    require_emulators()
    bound = 3_000
    section = {"flush": {"every": "2s", "events": 1_000}, "buffer": {"events": bound}, "layout": "per-event"}
    with (
        FirestoreEmulator.start() as firestore,
        Site(tmp_path / "stalled", project, firestore.host, pubsub_emulator.host, section) as site,
    ):
        worker = site.worker()
        manifest = site.publish(1_000, publishers=2)
        eventually(lambda: site.metrics.total("written") > 0)
        before = memory_kb(worker)
        firestore.pause()
        stopped = time.monotonic()
        try:
            manifest += site.publish(12_000, publishers=2)
            eventually(lambda: site.metrics.highest("buffer.depth") >= bound)
            # It takes more than half a minute, which has to pass here anyway.
            request.getfixturevalue("steady")
            eventually(lambda: time.monotonic() - stopped >= 30)
            eventually(lambda: worker.get("/ready")[0] == 503)
            assert worker.get("/live")[0] == 200, "a worker that waits is not to be restarted"
            grown = memory_kb(worker) - before
        finally:
            firestore.resume()
        assert site.metrics.highest("buffer.depth") <= bound
        assert grown < 100_000
        groups, wanted = groups_of(manifest), valid_messages(manifest)
        eventually(lambda: site.distinct() >= len(wanted), every=1.0)
        assert worker.terminate(timeout=PATIENCE_S) == 0
        stored = Counter(groups[one.fields["id"].string_value] for one in site.documents())
        assert stored == Counter(wanted.keys())
        total = site.metrics.total
        assert (
            total("received")
            == len(manifest)
            == sum(total(name) for name in ("written", "duplicate", "dead_lettered"))
        )
        assert total("written") == len(wanted), "what landed without an answer is not taken for a duplicate"


def test_the_metrics_add_up_to_the_event_and_agree_with_the_manifest(steady: Steady) -> None:
    total, lines = steady.site.metrics.total, steady.manifest
    names = ("written", "duplicate", "throttled", "dead_lettered")
    outcomes = {name: total(name) for name in names}
    assert total("received") == EVENTS == sum(outcomes.values()), outcomes
    assert total("released") == 0
    assert outcomes["dead_lettered"] == sum(not line["valid"] for line in lines)
    assert outcomes["written"] == steady.tally["events"] + steady.tally["copies"]
    for event_type in TYPES:
        valid = sum(line["valid"] and line["type"] == event_type for line in lines)
        counted = sum(total(name, type=event_type) for name in ("written", "duplicate", "throttled"))
        assert counted == valid
    groups = valid_messages(lines)
    assert steady.tally["events"] <= len(groups)
    assert len(groups) - steady.tally["events"] <= outcomes["throttled"]
    assert outcomes["throttled"] > 0
    assert total("writes") == len(steady.documents)
    assert total("writes_saved") == EVENTS - outcomes["dead_lettered"] - len(steady.documents)


def test_each_worker_flushes_more_than_once_and_one_flush_after_the_other(steady: Steady) -> None:
    """By the times at which Firestore says it wrote; `make bench-analytics` measures how far apart they are."""
    times: dict[str, dict[int, list[int]]] = {}
    for document in steady.documents:
        token, number = batch_of(document)
        times.setdefault(token, {}).setdefault(number, []).append(micros(document.create_time))
    assert len(times) == 2
    for flushes in times.values():
        assert len(flushes) >= 2
        assert all(max(flushes[one]) < min(flushes[other]) for one, other in pairwise(sorted(flushes)))


def test_the_warehouses_stream_holds_every_event_and_nothing_private(steady: Steady) -> None:
    copies = [one.message for one in steady.site.take("warehouse-all")]
    assert all(line["user"].startswith("user-") for line in steady.manifest if line["user"])
    stream = b"\n".join(copy.data + repr(dict(copy.attributes)).encode() for copy in copies)
    assert not [word for word in (b"user-", b'"ip"', b'"page"') if word in stream]
    assert len({orjson.loads(copy.data)["key"] for copy in copies}) == steady.tally["events"]


def memory_kb(process: Process) -> int:
    """The resident memory of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))

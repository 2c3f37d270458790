"""The benchmark measures what it says: tiny runs of its parts."""

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from replication.changes.decode import decode
from replication.changes.envelope import Kind
from replication.configuration.parse import parse_fleet
from replication.fleet.model import Fleet
from tests.bench import cases, chart, core, lag, report
from tests.bench.stage import Stage, drain
from tests.bench.workload import SOURCE, Spec, build
from workers.local.emulators import StartFailed

NOW = 1_700_000_000_000_000
"""µs"""
FLEET = """
project: bench-test
topic: changes
replicas:
  eu:   {database: app-eu,   location: europe-west1}
  us:   {database: app-us,   location: us-central1}
  apac: {database: app-apac, location: asia-south1}
collections:
  - {match: "{document=**}", mode: multi-primary}
"""
TINY = cases.Length(rounds=1, changes=200, lag_s=1, capture_s=0.5)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return parse_fleet(FLEET, file="fleet.yaml", read_secret=lambda _: b"")


def test_workload_is_what_its_spec_says(fleet: Fleet) -> None:
    """Every change is one a worker can apply, of the size asked for; half of them have an earlier version."""
    load = build(fleet, Spec(changes=40, bytes=1_000), now=NOW)
    changes = [decode(message, fleet) for message in load.messages]
    assert [change.path for change in changes] == load.paths
    assert {change.kind for change in changes} == {Kind.WRITE}
    assert {change.source for change in changes} == {SOURCE}
    assert all(1_000 <= len(change.body or b"") < 1_400 for change in changes)
    assert sum(1 for change in changes if len(change.version.clock) == 2) == len(load.seeds) == 20
    assert not any(change.faults for change in changes)


def test_workload_is_the_same_each_time(fleet: Fleet) -> None:
    spec = Spec(changes=20, conflicts=0.1)
    assert build(fleet, spec, now=NOW) == build(fleet, spec, now=NOW)


def test_conflicting_documents_are_seeded_without_a_version(fleet: Fleet) -> None:
    """As their own application left them: nobody had seen the other's write."""
    load = build(fleet, Spec(changes=100, conflicts=0.1), now=NOW)
    assert sum(1 for seed in load.seeds if fleet.metadata_field not in seed.update.fields) == 10


def test_core_applies_every_document(fleet: Fleet) -> None:
    """`measure` itself fails if one is not applied."""
    assert core.measure(fleet, build(fleet, Spec(changes=250), now=NOW), now=NOW) > 0


def test_targets_are_judged_by_the_bound_and_only_when_measured() -> None:
    results = {
        "worker": {"values": {"per_second": 90.0, "cpu_us": 101.0, "peak_mib": 100.0}},
        "ceiling": {"values": {"per_second": 100.0}},
    }
    judged = {one["target"]: one["met"] for one in report.judged(results)}
    assert judged == {
        "worker / ceiling": True,
        "CPU of the worker": False,
        "memory of the worker": True,
    }


def test_chart_is_svg_with_a_bar_a_value() -> None:
    drawn = ElementTree.fromstring(chart.draw("a < b", {"one": 2.0, "two": 1.0}, ours="two"))
    bars = [bar for bar in drawn.iter() if bar.tag.endswith("rect")]
    assert [bar.get("class") for bar in bars] == ["bar", "bar ours"]
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert widths[0] == pytest.approx(2 * widths[1], abs=1)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as opened:
        yield opened


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("contender", "count"),
    # Not BulkWriter: the library leaves changes unwritten now and then, which a run reports.
    [("worker", 200), ("ceiling", 200), ("transaction", 40), ("batched", 600)],
)
def test_contender_commits_every_change(stage: Stage, contender: str, count: int) -> None:
    """`drain` returns when the target holds every change, and fails otherwise."""
    with stage.scene() as scene:
        load = build(scene.fleet, Spec(changes=count), now=cases.now_us())
        run = drain(scene, contender, cases.command(scene, contender), load)
    assert run.per_second > 0
    assert run.cpu_us > 0
    assert run.peak_mib > 10


@pytest.mark.emulator
def test_contender_that_dies_is_reported_with_its_log(stage: Stage) -> None:
    with stage.scene() as scene:
        load = build(scene.fleet, Spec(changes=10), now=cases.now_us())
        with pytest.raises(StartFailed, match="invalid choice: 'nobody'"):
            drain(scene, "nobody", cases.command(scene, "nobody"), load)


@pytest.mark.emulator
def test_lag_is_of_the_commits_it_made(stage: Stage) -> None:
    with stage.scene() as scene, scene.launch("worker", cases.command(scene, "worker")) as worker:
        worker.ready()
        measured = lag.measure(scene, worker, rate=100, seconds=2)
    assert measured.samples > 0
    assert 0 < measured.p50_ms <= measured.p99_ms


@pytest.mark.emulator
def test_capture_answers_what_it_is_sent(stage: Stage) -> None:
    """`measure` itself fails at any answer but 204."""
    values: Any = cases.captured(stage, TINY)
    assert values["per_second"] > 0
    assert values["p50_ms"] <= values["p99_ms"]

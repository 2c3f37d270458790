"""What operators see: the metrics of the contract, sent by OTLP, with the true lag.

The lag is held against the databases' own commit times, to the microsecond.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from replication.adapters.pubsub import open_publisher
from replication.ports import Message
from tests.emulator.metrics import Collector, Labels, Point
from tests.emulator.replicas import Replicas
from tests.support.polling import PATIENCE_S, eventually
from workers.local.fleet import LocalFleet, TopicReader

COUNT = 30


@pytest.fixture(scope="module")
def topic(fleet: LocalFleet) -> TopicReader:
    """The topic from before this module's first write."""
    return fleet.read_topic()


@pytest.fixture(scope="module", autouse=True)
def lagged(topic: TopicReader, replicas: Replicas) -> None:
    """Documents written at `eu` that have arrived everywhere."""
    for number in range(COUNT):
        replicas.clients["eu"].document(f"lagged/{number}").set({"number": number})
    assert len(replicas.equal(below="lagged/")) == COUNT


def publish(fleet: LocalFleet, message: Message) -> None:
    host = fleet.pubsub.host
    with closing(open_publisher(fleet.fleet.project, fleet.fleet.topic, emulator_host=host)) as publisher:
        publisher.submit(message).result(PATIENCE_S)


@pytest.mark.parametrize("target", ["us", "apac"])
def test_the_lag_is_the_time_from_commit_to_commit(replicas: Replicas, metrics: Collector, target: str) -> None:
    labels = {"source": "eu", "target": target, "collection": "lagged"}
    eventually(lambda: metrics.count("firefleet.replication.lag", **labels) == COUNT)
    found = replicas.everything()
    lag_us = sum(
        found[target][path].update_time - stored.update_time
        for path, stored in found["eu"].items()
        if path.startswith("lagged/")
    )
    assert metrics.total("firefleet.replication.lag", **labels) == pytest.approx(lag_us / 1e6, abs=1e-4)
    assert lag_us > 0
    assert metrics.total("firefleet.changes", outcome="applied", **labels) == COUNT


def test_the_age_of_a_change_is_less_than_its_lag(metrics: Collector) -> None:
    """It ends when the worker has the change, before it is written."""
    for target in ("us", "apac"):
        labels = {"source": "eu", "target": target, "collection": "lagged"}
        eventually(partial(metrics.count, "firefleet.replication.record_age", **labels))
        age = metrics.total("firefleet.replication.record_age", **labels)
        assert 0 < age < metrics.total("firefleet.replication.lag", **labels)


def test_every_metric_of_the_contract_has_its_unit_and_its_attributes(metrics: Collector) -> None:
    change = {"source", "target", "collection"}
    for name, unit, attributes in (
        ("firefleet.replication.lag", "s", change),
        ("firefleet.replication.record_age", "s", change),
        ("firefleet.changes", "", change | {"outcome"}),
        ("firefleet.batch.size", "1", {"target"}),
        ("firefleet.apply.duration", "s", {"target"}),
        ("firefleet.inflight", "", {"target"}),
    ):
        point = eventually(partial(metrics.points, name, target="us"))[0]
        assert (point.unit, {label for label, _ in point.labels}) == (unit, attributes), name


def test_attributes_are_bounded(metrics: Collector) -> None:
    """A document's id in an attribute would make a series of every document."""
    values = {value for point in metrics.points("firefleet.changes") for _, value in point.labels}
    assert "lagged" in values
    assert not any(value.isdigit() or "/" in value for value in values)


@pytest.fixture
def paused(fleet: LocalFleet) -> Iterator[None]:
    """No event reaches capture, so that what is written meanwhile is concurrent."""
    assert fleet.stand_in is not None
    assert fleet.stand_in.post("/pause") == 204
    yield
    fleet.stand_in.post("/resume")


def test_a_conflict_is_counted_with_its_policy_and_its_winner(
    fleet: LocalFleet, replicas: Replicas, metrics: Collector, paused: None
) -> None:
    replicas.clients["eu"].document("contended/1").set({"at": "eu"})
    replicas.clients["us"].document("contended/1").set({"at": "us"})
    assert fleet.stand_in is not None
    fleet.stand_in.post("/resume")
    [body] = replicas.equal(below="contended/").values()
    assert b"us" in body
    # By one replica at least: the others may hear of its decision before they have to take it themselves.
    eventually(partial(metrics.points, "firefleet.conflicts", collection="contended"))
    counted = {
        point.labels - place(point) for point in metrics.points("firefleet.conflicts", collection="contended")
    }
    assert counted == {frozenset({("policy", "last-write-wins"), ("winner", "us")})}
    assert metrics.total("firefleet.changes", outcome="conflict", collection="contended") >= 1


def place(point: Point) -> Labels:
    """The attributes that say where."""
    return frozenset(label for label in point.labels if label[0] in ("source", "target", "collection"))


def test_changes_are_counted_by_what_became_of_them(
    fleet: LocalFleet, replicas: Replicas, metrics: Collector, topic: TopicReader
) -> None:
    def became(outcome: str, **labels: str) -> float:
        return metrics.total("firefleet.changes", outcome=outcome, **labels)

    replicas.clients["eu"].document("counted/1").set({"n": 1})
    replicas.equal(below="counted/")
    [first] = [one.message for one in topic.messages() if b"/counted/1" in one.message.data]
    publish(fleet, first)
    assert eventually(lambda: metrics.total("firefleet.changes", outcome="duplicate", collection="counted"))
    replicas.clients["eu"].document("counted/1").update({"n": 2})
    replicas.equal(below="counted/")
    publish(fleet, first)
    assert eventually(lambda: metrics.total("firefleet.changes", outcome="stale", collection="counted"))
    # What the workers wrote came back to capture, and went no further.
    assert eventually(lambda: became("echo", source="us"))

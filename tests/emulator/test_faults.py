"""Whatever is killed, stopped or unreachable: nothing is lost, and no one else is delayed.

Every worker and emulator is a process of its own here, and is really killed or frozen.
"""

from collections.abc import Iterator

import pytest

from tests.emulator.outage import Outage, count, write_many
from tests.emulator.replicas import Replicas
from tests.support.polling import PATIENCE_S, REDELIVERY_PATIENCE_S, eventually
from workers.local.fleet import LocalFleet
from workers.local.process import Process

BACKLOG = 1500


@pytest.fixture(autouse=True)
def nothing_healthy_is_buried(fleet: LocalFleet) -> Iterator[None]:
    buried = len(fleet.dead_letters())
    yield
    assert len(fleet.dead_letters()) == buried


@pytest.fixture(scope="module", autouse=True)
def kill(fleet: LocalFleet, replicas: Replicas) -> None:
    """At the start, because Pub/Sub delivers what a killed worker held only after a minute: `us` loses its one
    in the middle of a backlog, and gets another.
    """
    worker = in_the_middle(fleet, replicas, "us", "killed", elsewhere="apac")
    worker.kill()
    assert 0 < count(replicas.clients["us"], "killed") < BACKLOG, "it was killed in the middle"
    worker.restart()


def in_the_middle(
    fleet: LocalFleet, replicas: Replicas, replica: str, collection: str, *, elsewhere: str
) -> Process:
    """A replica's worker that has just begun with a backlog, which the one `elsewhere` has done with."""
    worker = only_worker(fleet, replica)
    worker.terminate(timeout=PATIENCE_S)
    write_many(replicas.clients["eu"], collection, BACKLOG)
    eventually(lambda: count(replicas.clients[elsewhere], collection) == BACKLOG, every=0.1)
    worker.restart()
    eventually(lambda: count(replicas.clients[replica], collection) > 0, every=0.005)
    return worker


def only_worker(fleet: LocalFleet, replica: str) -> Process:
    [worker] = fleet.workers[replica]
    return worker


def written_once(replicas: Replicas, replica: str, collection: str) -> bool:
    """Whether every document of a collection is as it was created: nothing was applied to it twice."""
    found = replicas.everything(below=f"{collection}/")[replica].values()
    return bool(found) and all(stored.create_time == stored.update_time for stored in found)


def test_a_worker_that_is_told_to_end_releases_what_it_did_not_apply_and_another_one_goes_on(
    fleet: LocalFleet, replicas: Replicas
) -> None:
    # No one else waits for it: `us` has it all meanwhile.
    worker = in_the_middle(fleet, replicas, "apac", "drained", elsewhere="us")
    apac = replicas.clients["apac"]
    assert worker.terminate(timeout=PATIENCE_S) == 0
    assert count(apac, "drained") < BACKLOG, "it was in the middle"
    worker.restart()
    eventually(lambda: count(apac, "drained") == BACKLOG, every=0.1)
    replicas.equal(below="drained/")
    assert written_once(replicas, "apac", "drained")


def test_a_worker_frozen_for_a_while_loses_nothing(fleet: LocalFleet, replicas: Replicas) -> None:
    worker = only_worker(fleet, "apac")
    worker.pause()
    write_many(replicas.clients["us"], "frozen", 100)
    eventually(lambda: count(replicas.clients["eu"], "frozen") == 100, every=0.1)
    assert count(replicas.clients["apac"], "frozen") == 0
    assert worker.get("/live", timeout=1)[0] == 0
    worker.resume()
    replicas.equal(below="frozen/")


def test_a_database_that_hangs_for_20_seconds_delays_only_itself(fleet: LocalFleet, replicas: Replicas) -> None:
    worker = only_worker(fleet, "apac")
    others = Replicas(fleet, only=("eu", "us"))
    eu, us = others.clients["eu"], others.clients["us"]
    write_many(eu, "hanging", 10)
    replicas.equal(below="hanging/")
    with Outage(fleet, "apac") as outage:
        write_many(eu, "hanging", 200)
        us.document("hanging/0").delete()
        us.document("hanging/1").update({"changed": True})
        # While it hangs: the others do not wait for it.
        held = others.equal(below="hanging/")
        assert (len(held), "hanging/0" in held) == (199, False)
        # It says that it cannot work, and nobody must restart it for that.
        assert eventually(lambda: worker.get("/ready")[0] == 503)
        assert worker.get("/live")[0] == 200
        outage.last(20)
    assert replicas.equal(below="hanging/") == held
    assert eventually(lambda: worker.get("/ready")[0] == 200)
    assert worker.running


def test_capture_killed_between_events_loses_none(fleet: LocalFleet, replicas: Replicas) -> None:
    before = fleet.stand_in_stats()["retried"]
    write_many(replicas.clients["eu"], "recaptured", 300)
    fleet.capture.kill()
    write_many(replicas.clients["us"], "recaptured", 400)
    assert eventually(lambda: fleet.stand_in_stats()["retried"] > before)
    fleet.capture.restart()
    assert len(replicas.equal(below="recaptured/")) == 400


def test_a_backlog_whose_worker_was_killed_is_applied_once_and_wholly(replicas: Replicas) -> None:
    us = replicas.clients["us"]
    eventually(lambda: count(us, "killed") == BACKLOG, REDELIVERY_PATIENCE_S, every=0.5)
    replicas.equal(below="killed/")
    assert written_once(replicas, "us", "killed")
    assert not any(path.startswith("killed/") for path in replicas.conflicts())


def test_pubsub_that_hangs_for_a_while_loses_nothing(fleet: LocalFleet, replicas: Replicas) -> None:
    """The last one here: when it goes on, it hands messages to pulls that nobody waits for any more."""
    worker = only_worker(fleet, "eu")
    fleet.pubsub.pause()
    try:
        write_many(replicas.clients["us"], "unpublished", 50)
        # Capture has taken them, and answers nobody before Pub/Sub has them.
        eventually(lambda: fleet.stand_in_stats()["in_flight"] >= 50)
        assert eventually(lambda: worker.get("/ready")[0] == 503)
        assert worker.get("/live")[0] == 200
    finally:
        fleet.pubsub.resume()
    assert len(replicas.equal(below="unpublished/")) == 50
    assert eventually(lambda: worker.get("/ready")[0] == 200)

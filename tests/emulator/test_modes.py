"""Local collections never leave, and what is written outside a primary is undone and kept in the log."""

import time
from collections.abc import Callable

import pytest

from tests.emulator.metrics import Collector
from tests.emulator.replicas import Replicas
from tests.support.polling import eventually
from workers.local.fleet import LocalFleet


def test_local_documents_never_leave_their_replica(fleet: LocalFleet, replicas: Replicas) -> None:
    """The topic is read, and not only the other replicas: nothing of them may even be published."""
    topic = fleet.read_topic()
    secret = f"secret-{time.time_ns()}"
    us = replicas.clients["us"]
    us.document("private/1").set({"x": secret})
    us.document("private/1/deep/2").set({"x": secret})
    us.document("private/1").update({"y": 1})
    us.document("private/1").delete()
    # Published after them, so once it is everywhere they have been looked at; the stand-in shuffles by 0.1 s.
    us.document("modes/after").set({"x": 1})
    replicas.equal(below="modes/after")
    eventually(lambda: fleet.undelivered() == 0)
    published = topic.messages()
    assert any(b"modes/after" in one.message.data for one in published)
    assert not any(b"private/" in one.message.data or secret.encode() in one.message.data for one in published)
    for replica in ("eu", "apac"):
        assert not any(path.startswith("private/") for path in replicas.everything()[replica])


def test_the_primary_s_writes_reach_everybody(replicas: Replicas) -> None:
    eu = replicas.clients["eu"]
    for number in range(5):
        eu.document(f"wallets/p{number}").set({"balance": number})
    eu.document("wallets/p1").update({"balance": 100})
    eu.document("wallets/p2").delete()
    eventually(
        lambda: all(
            set(found) >= {f"wallets/p{number}" for number in (0, 1, 3, 4)} and "wallets/p2" not in found
            for found in replicas.contents(below="wallets/p").values()
        ),
        every=0.5,
    )
    replicas.equal(below="wallets/p")


def update(replicas: Replicas) -> None:
    replicas.clients["us"].document("wallets/v").update({"balance": 1_000_000})


def replace(replicas: Replicas) -> None:
    replicas.clients["us"].document("wallets/v").set({"balance": "mine"})


def delete(replicas: Replicas) -> None:
    replicas.clients["us"].document("wallets/v").delete()


@pytest.mark.parametrize("violate", [update, replace, delete])
def test_a_write_outside_the_primary_is_counted_logged_and_undone(
    replicas: Replicas, metrics: Collector, violate: Callable[[Replicas], None]
) -> None:
    replicas.clients["eu"].document("wallets/v").set({"balance": 7, "try": violate.__name__})
    right = replicas.equal(below="wallets/v")
    eventually(lambda: set(replicas.contents(below="wallets/v")["us"]) == {"wallets/v"}, every=0.5)
    right = replicas.equal(below="wallets/v")
    before, logged = violations(metrics), violation_records(replicas)
    violate(replicas)
    eventually(lambda: violation_records(replicas) > logged, every=0.5)
    assert replicas.equal(below="wallets/v") == right
    assert eventually(lambda: violations(metrics) > before)


def test_a_document_created_outside_the_primary_is_removed_and_its_body_kept(replicas: Replicas) -> None:
    mark = f"mine-{time.time_ns()}"
    replicas.clients["apac"].document("wallets/created").set({"mark": mark})
    eventually(lambda: mark in logged_marks(replicas, "apac"), every=0.5)
    eventually(lambda: not replicas.clients["apac"].document("wallets/created").get().exists)
    assert not any("wallets/created" in found for found in replicas.contents().values())


def logged_marks(replicas: Replicas, replica: str) -> set[str]:
    """The `mark` of every body in a replica's conflict log."""
    return {
        stored.fields["body"].map_value.fields["mark"].string_value
        for path, stored in replicas.everything()[replica].items()
        if "/_repl_bodies/" in path and "body" in stored.fields
    }


def violation_records(replicas: Replicas) -> int:
    return sum(
        stored.fields["kind"].string_value == "violation"
        for path, stored in replicas.everything()["us"].items()
        if path.startswith("_repl_conflicts/") and path.count("/") == 1
    )


def violations(metrics: Collector) -> float:
    return metrics.total("firefleet.changes", outcome="violation")

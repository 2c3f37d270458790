"""The histories that tempt a replication system: each ends equal everywhere, as the protocol says.

Every test writes with the official client and ends by what all replicas must hold; none may stop a worker or
leave a healthy change in the dead letters.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from google.cloud import firestore

from replication.documents.metadata import FLEET_WRITE_US_MAX, digest_of
from replication.documents.wire import Document
from tests.emulator.replicas import Replicas
from tests.support.polling import eventually
from workers.local.fleet import LocalFleet

METADATA = "_repl"


@pytest.fixture(autouse=True)
def nothing_stops(fleet: LocalFleet) -> Iterator[None]:
    buried = len(fleet.dead_letters())
    yield
    assert all(worker.running for workers in fleet.workers.values() for worker in workers)
    assert fleet.capture.running
    assert len(fleet.dead_letters()) == buried


class Story:
    """One document's life at three replicas."""

    def __init__(self, replicas: Replicas, name: str) -> None:
        self.replicas = replicas
        self.path = f"stories/{name}"

    def at(self, replica: str) -> firestore.DocumentReference:
        return self.replicas.clients[replica].document(self.path)

    def settles(self, expected: dict[str, Any] | None) -> None:
        """Wait until every replica holds exactly these fields, or no document."""
        eventually(lambda: self.held() == [expected] * 3, every=0.2)

    def held(self) -> list[dict[str, Any] | None]:
        found = [self.at(replica).get().to_dict() for replica in self.replicas.clients]
        return [None if one is None else {k: v for k, v in one.items() if k != METADATA} for one in found]

    def whole(self, replica: str) -> dict[str, Any]:
        """The document with its metadata, as an application that copies it gets it."""
        found = self.at(replica).get().to_dict()
        assert found is not None
        return dict(found)


@pytest.fixture
def story(replicas: Replicas, request: pytest.FixtureRequest) -> Story:
    return Story(replicas, request.node.name)


def test_a_whole_set_twice_in_a_row(story: Story) -> None:
    story.at("eu").set({"x": 1, "gone": True})
    story.at("eu").set({"x": 2})
    story.settles({"x": 2})
    story.at("us").set({"x": 3})
    story.at("us").set({"x": 4})
    story.settles({"x": 4})


def test_updates_at_one_replica_after_another(story: Story) -> None:
    story.at("eu").set({"x": 1})
    story.settles({"x": 1})
    story.at("us").update({"y": 2})
    story.settles({"x": 1, "y": 2})
    story.at("apac").update({"x": firestore.DELETE_FIELD})
    story.settles({"y": 2})


def test_a_delete(story: Story) -> None:
    story.at("eu").set({"x": 1})
    story.settles({"x": 1})
    story.at("us").delete()
    story.settles(None)


def test_delete_and_re_create_at_once(story: Story) -> None:
    story.at("eu").set({"x": 1})
    story.settles({"x": 1})
    story.at("eu").delete()
    story.at("eu").set({"x": 2})
    story.settles({"x": 2})


def test_delete_here_and_re_create_there(story: Story) -> None:
    story.at("eu").set({"x": 1})
    story.settles({"x": 1})
    story.at("eu").delete()
    story.settles(None)
    story.at("apac").set({"x": 3})
    story.settles({"x": 3})
    story.at("us").delete()
    story.settles(None)


def test_concurrent_update_and_delete_end_equal(story: Story) -> None:
    for number in range(5):
        story.at("eu").set({"x": number})
        story.settles({"x": number})
        story.at("us").update({"x": "updated"})
        story.at("apac").delete()
        eventually(lambda: len({str(one) for one in story.held()}) == 1, every=0.2)
        assert story.held()[0] in (None, {"x": "updated"})


def test_a_document_copied_onto_another_with_its_metadata(story: Story, replicas: Replicas) -> None:
    """The copy's clock is another document's: it must not beat, nor be beaten, by what it says."""
    story.at("eu").set({"x": "original"})
    story.settles({"x": "original"})
    other = Story(replicas, "copied_onto")
    other.at("us").set({"x": "old"})
    other.settles({"x": "old"})
    other.at("us").set(story.whole("us"))
    other.settles({"x": "original"})
    other.at("apac").update({"x": "later"})
    other.settles({"x": "later"})
    story.settles({"x": "original"})


def test_an_old_snapshot_written_back_whole_is_a_revert(story: Story) -> None:
    story.at("eu").set({"x": "first"})
    story.settles({"x": "first"})
    old = story.whole("us")
    story.at("eu").update({"x": "second"})
    story.settles({"x": "second"})
    story.at("us").set(old)
    story.settles({"x": "first"})
    story.at("apac").update({"x": "third"})
    story.settles({"x": "third"})


def test_a_delete_undone_with_an_old_snapshot(story: Story) -> None:
    story.at("eu").set({"x": "first"})
    story.settles({"x": "first"})
    story.at("eu").update({"x": "kept"})
    story.settles({"x": "kept"})
    old = story.whole("us")
    story.at("us").delete()
    story.settles(None)
    story.at("us").set(old)
    story.settles({"x": "kept"})


def test_a_delete_undone_with_a_snapshot_of_its_first_arrival(story: Story) -> None:
    """For ten seconds it cannot be told from that arrival, which is a known limit; then it is a write."""
    story.at("eu").set({"x": "kept"})
    story.settles({"x": "kept"})
    old = story.whole("us")
    story.at("us").delete()
    story.settles(None)
    eventually(lambda: time.time_ns() // 1000 > old[METADATA]["read"] + FLEET_WRITE_US_MAX, every=0.2)
    story.at("us").set(old)
    story.settles({"x": "kept"})


@pytest.mark.parametrize(
    "garbage",
    ["nonsense", 7, [1, 2], {}, {"clock": {"eu": "soon"}, "stamp": -1}, None],
    ids=str,
)
def test_metadata_that_is_garbage_counts_as_none(story: Story, garbage: Any) -> None:
    story.at("eu").set({"x": 1})
    story.settles({"x": 1})
    story.at("us").set({"x": 2, METADATA: garbage})
    story.settles({"x": 2})
    story.at("apac").update({METADATA: garbage, "y": 3})
    story.settles({"x": 2, "y": 3})
    story.at("eu").update({"y": 4})
    story.settles({"x": 2, "y": 4})


def test_metadata_forged_into_the_future_wins_nothing(story: Story) -> None:
    story.at("eu").set({"x": 1})
    story.settles({"x": 1})
    forged = story.whole("us")
    metadata = forged[METADATA]
    future = metadata["stamp"] + 10**15
    metadata.update(stamp=future, dot=future, clock={"eu": future, "us": future, "apac": future})
    story.at("us").set({**forged, "x": "forged"})
    story.settles({"x": "forged"})
    story.at("apac").update({"x": "honest"})
    story.settles({"x": "honest"})
    story.at("eu").set({"x": "at last"})
    story.settles({"x": "at last"})


def test_what_the_fleet_writes_carries_its_version_and_the_digest_of_its_content(story: Story) -> None:
    """The contract of `_repl`, as anybody can read it in the database."""
    story.at("eu").set({"x": 1})
    story.settles({"x": 1})
    found = story.whole("apac")
    metadata = found[METADATA]
    assert set(metadata) >= {"clock", "stamp", "dot", "origin", "digest", "base", "read", "seal"}
    assert metadata["origin"] == "eu"
    assert metadata["clock"] == {"eu": metadata["dot"]}
    assert metadata["base"] == 0
    body = Document()
    body.fields["x"].integer_value = 1
    assert metadata["digest"] == digest_of(body.SerializeToString(deterministic=True))

"""Applying a batch: the order of effects, what happens when one fails, and what never happens."""

from itertools import count
from typing import Any

import pytest

from replication.adapters.memory import MemoryDatabase
from replication.apply.effects import Effect
from replication.apply.outcomes import Outcome
from replication.documents.wire import Value
from replication.effects import Acknowledge, BatchWrite, Commit, Expired, Pause, Postpone, Publish, Read
from replication.errors import ConditionFailed, Refused, Transient
from replication.ports import Message
from tests.support.driving import Bench
from tests.support.fleets import NOW, data, document, fleet, message, text

FLEET = fleet()


@pytest.fixture
def bench() -> Bench:
    clock = count(NOW + 1_000_000, 1000)
    databases = {name: MemoryDatabase("shop", name, now=lambda: next(clock)) for name in FLEET.replicas}
    return Bench(FLEET, "apac", databases)


def stored(bench: Bench, path: str) -> Any:
    """The document that the target has there."""
    found = bench.databases["apac"].get(path)
    assert found is not None
    return found


def write(
    path: str = "docs/1", value: str = "new", *, replica: str = "eu", at: int = NOW, **attributes: Any
) -> Message:
    made = document(replica, path, {"x": text(value)}, update_time=at)
    return message("write", replica, made, **attributes)


def delete(path: str = "docs/1", *, replica: str = "eu", at: int = NOW) -> Message:
    old = document(replica, path, {"x": text("old")}, update_time=at)
    return message("delete", replica, None, old, time=at + 5, heal="1")


def test_a_create_is_one_commit_with_its_guard_then_acknowledged(bench: Bench) -> None:
    bench.run(write())
    assert bench.kinds() == ["Read", "Commit", "Observe", "Acknowledge"]
    commit = bench.effects[1]
    assert isinstance(commit, Commit)
    assert len(commit.writes) == 2
    assert bench.text("docs/1") == "new"
    assert (
        bench.observations[0].lag_us == bench.databases["apac"].read(["docs/1"], timeout=1)[0].update_time - NOW
    )


def test_an_overwrite_reads_no_tombstone_and_is_one_batch_write(bench: Bench) -> None:
    bench.run(write(at=NOW))
    bench.effects.clear()
    bench.run(write(value="newer", at=NOW + 1))
    assert bench.kinds() == ["Read", "BatchWrite", "Observe", "Acknowledge"]
    assert bench.text("docs/1") == "newer"


def test_a_delete_leaves_a_tombstone_that_keeps_a_late_create_out(bench: Bench) -> None:
    bench.run(write(at=NOW))
    bench.run(delete(at=NOW))
    bench.run(write(at=NOW))
    assert bench.text("docs/1") is None
    assert bench.outcomes() == ["applied", "applied", "stale"]


def test_a_delete_of_what_never_came_leaves_a_tombstone_too(bench: Bench) -> None:
    bench.run(delete(at=NOW))
    bench.run(write(at=NOW))
    assert bench.text("docs/1") is None


def test_a_re_creation_after_the_delete_stays(bench: Bench) -> None:
    bench.run(delete(at=NOW), write(at=NOW + 10))
    assert bench.text("docs/1") == "new"
    bench.run(delete(at=NOW))
    assert bench.text("docs/1") == "new"


def test_a_tombstone_that_appears_between_read_and_create_stops_the_create(bench: Bench) -> None:
    def bury_meanwhile(effect: Effect, it: Bench) -> None:
        if isinstance(effect, Commit):
            it.fault = lambda *_: None
            Bench(FLEET, "apac", it.databases).run(delete(at=NOW))

    bench.fault = bury_meanwhile
    bench.run(write(at=NOW))
    assert bench.text("docs/1") is None
    assert bench.outcomes() == ["stale"]


def test_a_local_write_between_read_and_write_is_not_overwritten(bench: Bench) -> None:
    bench.run(write(at=NOW))
    bench.observations.clear()

    def write_meanwhile(effect: Effect, it: Bench) -> None:
        if isinstance(effect, BatchWrite) and effect.read_at is not None:
            it.fault = lambda *_: None
            it.databases["apac"].set("docs/1", {"x": text("local")})

    bench.fault = write_meanwhile
    bench.run(write(value="remote", at=NOW + 1))
    assert bench.text("docs/1") == "local", "it was written later"
    assert bench.outcomes() == ["conflict"]


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("effect_type", [Commit, BatchWrite])
def test_a_write_of_unknown_outcome_is_read_again_and_counts_once(
    bench: Bench, effect_type: type[Commit | BatchWrite], landed: bool
) -> None:
    if effect_type is BatchWrite:
        bench.run(write(value="old", at=NOW - 1))
        bench.observations.clear()

    def lose_the_answer(effect: Effect, it: Bench) -> None:
        if isinstance(effect, effect_type):
            it.fault = lambda *_: None
            if landed:
                it.perform(effect)
            raise Transient("deadline exceeded")

    bench.fault = lose_the_answer
    bench.run(write(at=NOW))
    assert bench.text("docs/1") == "new"
    assert bench.outcomes() == ["applied"]
    lag_us = bench.observations[0].lag_us
    assert lag_us is not None
    assert lag_us > 0
    assert "Pause" in bench.kinds()


def test_while_the_database_is_down_messages_are_held_not_acknowledged(bench: Bench) -> None:
    failures = iter(range(30))

    def down(effect: Effect, it: Bench) -> None:
        if isinstance(effect, Read) and next(failures, None) is not None:
            assert it.acknowledged == []
            raise Transient("unavailable")

    bench.fault = down
    bench.run(write())
    assert [effect.attempt for effect in bench.effects if isinstance(effect, Pause)] == list(range(1, 31))
    assert bench.acknowledged == ["a0"]


def test_a_read_too_long_ago_is_read_again(bench: Bench) -> None:
    def late(effect: Effect, it: Bench) -> None:
        if isinstance(effect, Commit):
            it.fault = lambda *_: None
            raise Expired("too long ago")

    bench.fault = late
    bench.run(write())
    assert bench.kinds().count("Read") == 3
    assert bench.text("docs/1") == "new"


def test_a_re_creation_in_a_batch_of_creates_costs_one_more_round_and_no_splitting(bench: Bench) -> None:
    bench.run(delete("docs/3", at=NOW))
    bench.effects.clear()
    bench.run(*(write(f"docs/{number}", at=NOW + 10) for number in range(8)))
    assert bench.kinds() == ["Read", "Commit", "Read", "Read", "Commit", "Observe", "Acknowledge"]
    assert [bench.text(f"docs/{number}") for number in range(8)] == ["new"] * 8


def test_creates_of_deleted_documents_are_stale_and_the_others_of_their_commit_land(bench: Bench) -> None:
    bench.run(delete("docs/3", at=NOW))
    bench.run(*(write(f"docs/{number}", at=NOW) for number in range(8)))
    assert [bench.text(f"docs/{number}") for number in range(8)] == ["new"] * 3 + [None] + ["new"] * 4


def test_a_conflict_s_bodies_are_logged_before_the_overwrite(bench: Bench) -> None:
    bench.run(write(value="theirs", at=NOW, replica="us"))
    bench.effects.clear()
    bench.run(write(value="mine", at=NOW + 1))
    log, overwrite = (effect for effect in bench.effects if isinstance(effect, BatchWrite))
    assert log.read_at is None
    assert overwrite.read_at is not None
    logged = [path for path in bench.databases["apac"].paths() if path.startswith("_repl_conflicts/")]
    bodies = [path for path in logged if "/_repl_bodies/" in path]
    assert (len(logged), len(bodies)) == (3, 2)
    kept = {stored(bench, path).fields["body"].map_value.fields["x"].string_value for path in bodies}
    assert kept == {"theirs", "mine"}


def test_without_its_conflict_record_nothing_is_overwritten(bench: Bench) -> None:
    bench.run(write(value="theirs", at=NOW, replica="us"))

    def refuse_the_log(effect: Effect, it: Bench) -> None:
        if isinstance(effect, BatchWrite) and effect.read_at is None:
            raise Refused("no")

    bench.fault = refuse_the_log
    bench.run(write(value="mine", at=NOW + 1))
    assert bench.text("docs/1") == "theirs"
    assert [letter.attributes["reason"] for letter in bench.dead] == ["invalid"]


def test_a_merger_that_is_behind_is_told_the_local_version(bench: Bench) -> None:
    bench.run(write(value="v1", at=NOW), write(value="v2", at=NOW + 10, replica="us"))
    stale = stored(bench, "docs/1")
    stale.name = stale.name.replace("databases/apac", "databases/us")
    bench.databases["apac"].update("docs/1", {"x": text("v3")})
    bench.run(message("merged", "us", stale))
    (told,) = bench.published
    assert told.attributes["to"] == "us"
    assert told.attributes["kind"] == "merged"
    receiver = Bench(FLEET, "us", bench.databases)
    receiver.run(told)
    assert receiver.text("docs/1") == "v3"


def test_bad_messages_are_buried_with_reason_and_attributes_and_their_neighbours_applied(bench: Bench) -> None:
    noise = Message(b"\xff", {"replica": "eu", "kind": "write", "mine": "kept"})
    bench.run(write("docs/1"), noise, write("docs/2"), Message(b"", {}))
    assert bench.text("docs/1") == bench.text("docs/2") == "new"
    assert [letter.attributes["reason"] for letter in bench.dead] == ["undecodable", "missing_attribute"]
    assert bench.dead[0].data == b"\xff"
    assert bench.dead[0].attributes["mine"] == "kept"
    assert bench.dead[0].attributes["target"] == "apac"
    assert sorted(bench.acknowledged) == ["a0", "a1", "a2", "a3"]


def test_a_replica_that_somebody_made_up_is_no_label_of_a_metric(bench: Bench) -> None:
    bench.run(Message(b"", {"replica": "atlantis", "kind": "write"}), Message(b"\xff", {"replica": "eu"}))
    assert [seen.source for seen in bench.observations] == ["", "eu"]


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("docs/7", "docs/7"),
        ("docs", None),
        ("/docs/7", None),
        ("", None),
        (f"docs/{'é' * 600}", f"docs/{'é' * 509}"),
    ],
)
def test_a_dead_letter_has_the_path_that_its_attributes_name_within_pubsubs_bound(
    bench: Bench, named: str, told: str | None
) -> None:
    bench.run(Message(b"\xff", {"replica": "eu", "kind": "write", "ce-document": named}))
    [letter] = bench.dead
    assert letter.attributes.get("path") == told
    assert bench.observations[0].path == (named if told else "")


def test_a_dead_letter_is_durable_before_the_acknowledgement(bench: Bench) -> None:
    bench.run(Message(b"\xff", {}))
    assert bench.kinds() == ["Publish", "Observe", "Acknowledge"]


def test_the_same_message_buried_again_is_recognised(bench: Bench) -> None:
    bench.run(Message(b"\xff", {}))
    bench.run(Message(b"\xff", {}))
    assert len({letter.attributes["id"] for letter in bench.dead}) == 1


def test_a_document_too_large_is_buried_alone_and_its_neighbours_land(bench: Bench) -> None:
    large = document("eu", "docs/big", {}, update_time=NOW + 1)
    large.fields["x"].string_value = "x" * 1_048_400
    bench.run(write("docs/1"), write("docs/big", "fits"), message("write", "eu", large), write("docs/2"))
    assert bench.text("docs/1") == bench.text("docs/2") == "new"
    assert bench.text("docs/big") == "fits"
    assert [letter.attributes["reason"] for letter in bench.dead] == ["too_large"]
    [seen] = [each for each in bench.observations if each.outcome is Outcome.DEAD_LETTER]
    letter = bench.dead[0].attributes
    assert (letter["path"], letter["id"]) == (seen.path, seen.letter)


@pytest.mark.parametrize("error", [Refused, ConditionFailed])
def test_a_refused_commit_is_split_until_the_culprit_stands_alone(bench: Bench, error: type[Exception]) -> None:
    def refuse(effect: Effect, it: Bench) -> None:
        if isinstance(effect, Commit) and any("/culprit" in made.update.name for made in effect.writes):
            if error is ConditionFailed:
                it.fault = lambda *_: None
                it.databases["apac"].set("docs/culprit", {"x": text("local")})
            raise error("no")

    bench.fault = refuse
    bench.run(*(write(f"docs/{n}") for n in range(20)), write("docs/culprit"))
    assert all(bench.text(f"docs/{n}") == "new" for n in range(20))
    assert len(bench.dead) == (error is Refused)
    assert len(bench.acknowledged) == 21


def test_local_documents_are_never_applied(bench: Bench) -> None:
    bench.run(write("secrets/1"))
    assert bench.text("secrets/1") is None
    assert bench.dead[0].attributes["reason"] == "local_collection"


def test_a_violation_is_undone_and_its_body_logged(bench: Bench) -> None:
    bench.databases["eu"].set("wallets/1", {"x": text("right")})
    bench.databases["apac"].set("wallets/1", {"x": text("wrong")})
    wrong = bench.databases["apac"].get("wallets/1")
    bench.run(Message(data(wrong), {"replica": "apac", "kind": "violation", "to": "apac"}))
    assert bench.text("wallets/1") == "right"
    assert bench.outcomes() == ["violation"]
    assert any("_repl_bodies" in path for path in bench.databases["apac"].paths())


def test_a_change_published_under_another_config_goes_back_to_be_undone(bench: Bench) -> None:
    bench.run(write("wallets/1", replica="us", heal="1"))
    assert bench.text("wallets/1") is None
    (sent,) = bench.published
    assert (sent.attributes["kind"], sent.attributes["to"]) == ("violation", "us")
    assert "heal" not in sent.attributes
    assert bench.kinds() == ["Publish", "Acknowledge"]


@pytest.mark.parametrize(
    ("attributes", "mine"),
    [
        ({"replica": "eu"}, True),
        ({"replica": "apac"}, False),
        ({"replica": "apac", "heal": "1"}, True),
        ({"replica": "eu", "to": "us"}, False),
        ({"replica": "apac", "to": "apac"}, True),
        ({}, True),
    ],
)
def test_the_worker_filters_as_its_subscription_does(
    bench: Bench, attributes: dict[str, str], mine: bool
) -> None:
    bench.run(Message(b"", {"kind": "write"} | attributes))
    assert bench.acknowledged == ["a0"]
    assert bool(bench.dead) is mine


def test_a_hot_document_is_left_to_cool_and_applied_in_the_end(bench: Bench) -> None:
    races = iter(range(10))

    def race(effect: Effect, it: Bench) -> None:
        if (
            isinstance(effect, Commit | BatchWrite)
            and effect.read_at is not None
            and next(races, None) is not None
        ):
            it.databases["apac"].set("docs/1", {"x": Value(integer_value=next(races, 0))})

    bench.fault = race
    bench.run(write(at=NOW + 10_000_000))
    assert bench.acknowledged == ["a0"]
    assert any(isinstance(effect, Pause) for effect in bench.effects)


def test_nothing_is_acknowledged_before_the_write(bench: Bench) -> None:
    seen: list[type] = []
    bench.fault = lambda effect, it: seen.append(type(effect))
    bench.run(write("docs/1"), delete("docs/2"), write("docs/3"))
    assert seen.index(Acknowledge) > max(
        n for n, kind in enumerate(seen) if kind in (Commit, BatchWrite, Publish)
    )


def test_a_violation_whose_primary_is_down_is_postponed_and_holds_up_nobody(bench: Bench) -> None:
    def primary_down(effect: Effect, it: Bench) -> None:
        if isinstance(effect, Read) and effect.replica == "eu":
            raise Transient("eu is down")

    bench.fault = primary_down
    wrong = document("apac", "wallets/1", {"x": text("wrong")}, update_time=NOW)
    bench.run(Message(data(wrong), {"replica": "apac", "kind": "violation", "to": "apac"}), write("docs/1"))
    assert bench.text("docs/1") == "new"
    assert bench.acknowledged == ["a1"]
    assert isinstance(bench.effects[-1], Postpone)
    assert bench.effects[-1].ack_ids == ["a0"]


def test_a_violation_of_a_collection_that_has_become_multi_primary_is_a_write_after_all(bench: Bench) -> None:
    written = document("us", "docs/1", {"x": text("kept")}, update_time=NOW)
    bench.run(Message(data(written), {"replica": "us", "kind": "violation", "to": "apac"}))
    (sent,) = bench.published
    assert (sent.attributes["kind"], sent.attributes["heal"]) == ("write", "1")
    assert "to" not in sent.attributes

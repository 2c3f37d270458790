"""Capture's table: what an event is, and who receives it."""

from collections.abc import Sequence
from typing import Any

import pytest

from conflict.version import Version
from replication.changes.capture import Dropped, ReadTombstone, Why, capture, run_capture
from replication.documents.metadata import Meta
from replication.documents.stored import dismantle, tombstone_write
from replication.documents.wire import set_micros
from replication.errors import EventError, Reason, Transient
from replication.fleet.model import Fleet
from replication.ports import Found, Message
from tests.support.fleets import CODEC, NOW, TEXT, document, fleet, request, text

FLEET = fleet()
BODY = {"x": text("1")}
DIGEST = dismantle(
    document("us", "orders/1", BODY, update_time=1), path="orders/1", prefix="", codec=CODEC
).digest


def meta(*, base: int = 0, read: int = NOW, merged: bool = False, digest: bytes = DIGEST) -> Meta:
    version = Version({"eu": NOW - 50}, NOW - 50, "eu", NOW - 50, digest)
    return Meta(version, base=base, read=read, merged=merged)


def captured(
    value: Any = None, old: Any = None, tombstone: Any = None, the_fleet: Fleet = FLEET, **headers: Any
) -> Any:
    """What a change is to the fleet, where the replica has this tombstone; and the paths that were read."""
    read: list[tuple[str, str]] = []

    def found(wanted: ReadTombstone) -> Found:
        read.append((wanted.replica, wanted.path))
        return tombstone or Found(wanted.path, None, 0, NOW)

    return run_capture(capture(*request(value, old, **headers), the_fleet), found), read


def published(*args: Any, **kwargs: Any) -> Any:
    """The own attributes of what is published for a change, else why nothing is."""
    result, _ = captured(*args, **kwargs)
    if isinstance(result, Dropped):
        return result.why
    return {name: text for name, text in result.attributes.items() if name in ("replica", "kind", "heal", "to")}


def us(path: str = "orders/1", body: dict[str, Any] = BODY, *, update_time: int = NOW, **kwargs: Any) -> Any:
    return document("us", path, body, update_time=update_time, **kwargs)


def test_an_applications_create_is_a_write_for_the_others() -> None:
    assert published(us()) == {"replica": "us", "kind": "write"}


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("replaced", [None, NOW - 100])
def test_what_the_fleet_wrote_is_an_echo_and_goes_on_only_if_merged(merged: bool, replaced: int | None) -> None:
    value = us(meta=meta(base=replaced or 0, merged=merged))
    old = us(update_time=replaced) if replaced else None
    assert published(value, old) == ({"replica": "us", "kind": "merged"} if merged else Why.ECHO)


def test_an_intact_repl_on_another_base_is_an_applications_write_and_heals() -> None:
    """An old snapshot written back whole: the replica's own copy claims a clock without this write."""
    value = us(meta=meta(base=NOW - 100))
    assert published(value, us(update_time=NOW - 99)) == {"replica": "us", "kind": "write", "heal": "1"}


def test_an_intact_repl_written_long_after_its_read_is_an_applications_write() -> None:
    value = us(meta=meta(read=NOW - 10_000_001))
    assert published(value) == {"replica": "us", "kind": "write", "heal": "1"}
    assert published(us(meta=meta(read=NOW - 10_000_000))) is Why.ECHO


def test_a_partial_update_keeps_its_repl_and_needs_no_healing() -> None:
    value = us(body={"x": text("2")}, meta=meta())
    assert published(value, us(meta=meta(), update_time=NOW - 9)) == {"replica": "us", "kind": "write"}


def test_a_whole_set_lost_its_clock_and_heals() -> None:
    old = us(meta=meta(), update_time=NOW - 9)
    assert published(us(), old) == {"replica": "us", "kind": "write", "heal": "1"}


def test_a_whole_set_over_an_applications_document_has_nothing_to_heal() -> None:
    assert published(us(), us(update_time=NOW - 9)) == {"replica": "us", "kind": "write"}


def test_a_copy_of_another_document_is_a_plain_write() -> None:
    value = us(meta=meta(), sealed_for="orders/2")
    assert published(value) == {"replica": "us", "kind": "write"}


def test_a_delete_goes_to_all_others_and_back() -> None:
    assert published(None, us(update_time=NOW - 9)) == {"replica": "us", "kind": "delete", "heal": "1"}


def test_a_delete_by_the_fleet_is_an_echo() -> None:
    assert published(None, us(update_time=NOW - 9), tombstone(bases=[5, NOW - 9])) is Why.ECHO
    assert published(None, us(update_time=NOW - 9), tombstone(bases=[5])) == {
        "replica": "us",
        "kind": "delete",
        "heal": "1",
    }


def tombstone(
    *, bases: Sequence[int] = (), merged: bool = False, path: str = "orders/1", kept_at: str = ""
) -> Found:
    version = Version({"eu": NOW}, NOW, "eu", NOW, deleted=True)
    write = tombstone_write(
        path,
        Meta(version, read=NOW, merged=merged),
        list(bases),
        expire_at=NOW,
        prefix="projects/shop/databases/us/documents/",
        codec=CODEC,
    )
    set_micros(write.update.update_time, NOW)
    if kept_at:
        write.update.name = f"projects/shop/databases/us/documents/{kept_at}"
    return Found(CODEC.tombstone_path(path), write.update, NOW, NOW)


def test_only_deletes_of_application_documents_need_a_tombstone_read() -> None:
    old = us(update_time=NOW - 9)

    def read(*args: Any, **kwargs: Any) -> Any:
        return captured(*args, **kwargs)[1]

    assert read(None, old) == [("us", CODEC.tombstone_path("orders/1"))]
    assert read(us(), old) == []
    assert read(None, us("secrets/1")) == []
    assert read(None, us("_repl_tombstones/1")) == []
    assert read(None, old, ce_authtype="system") == []
    assert read() == []


def test_a_failed_read_ends_the_capture() -> None:
    def away(wanted: ReadTombstone) -> Found:
        raise Transient(f"{wanted.replica} is away")

    with pytest.raises(Transient, match="us is away"):
        run_capture(capture(*request(None, us()), FLEET), away)


def test_ttl_deletes_stay_unless_the_config_says_so() -> None:
    old = us(update_time=NOW - 9)
    assert published(None, old, ce_authtype="system") is Why.EXPIRED
    replicating = fleet("expirations: replicate\n" + TEXT)
    expected = {"replica": "us", "kind": "delete", "heal": "1"}
    assert published(None, old, the_fleet=replicating, ce_authtype="system") == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (tombstone(merged=True), {"replica": "us", "kind": "merged"}),
        (tombstone(merged=False), Why.OWN),
        (tombstone(merged=True, kept_at="_repl_tombstones/elsewhere"), Why.OWN),
    ],
    ids=["merged", "plain", "under another id"],
)
def test_of_the_fleets_own_documents_only_merged_tombstones_are_published(
    found: Found, expected: object
) -> None:
    assert published(found.document) == expected


def test_unchanged_events_are_not_published() -> None:
    """The emulator reports guards: an empty mask as a write of the same, an absent tombstone as no document."""
    kept = us(meta=meta(merged=True))
    assert captured(kept, kept) == (Dropped(Why.UNCHANGED), [])
    assert captured() == (Dropped(Why.UNCHANGED), [])


def test_the_conflict_log_stays() -> None:
    assert published(us("_repl_conflicts/abc")) is Why.OWN
    assert published(us("_repl_conflicts/abc/_repl_bodies/1")) is Why.OWN


def test_local_collections_never_leave() -> None:
    assert captured(us("secrets/1")) == (Dropped(Why.LOCAL, "us"), [])
    assert published(us("secrets/1/more/2")) is Why.LOCAL
    assert published(None, us("secrets/1")) is Why.LOCAL


def test_a_write_outside_the_primary_is_a_violation_for_that_replica_alone() -> None:
    assert published(us("wallets/1")) == {"replica": "us", "kind": "violation", "to": "us"}
    assert published(None, us("wallets/1")) == {"replica": "us", "kind": "violation", "to": "us"}
    at_primary = document("eu", "wallets/1", BODY, update_time=NOW)
    assert published(at_primary) == {"replica": "eu", "kind": "write"}


def test_a_database_of_no_replica_is_an_error_that_names_it() -> None:
    with pytest.raises(EventError, match="databases/mars is not a replica") as caught:
        published(document("mars", "orders/1", BODY, update_time=NOW))
    assert caught.value.reason is Reason.UNKNOWN_REPLICA


def test_attributes_are_the_cloud_events_and_fit_pub_sub() -> None:
    made, _ = captured(us(), ce_document="d" * 1025, ce_source="//x", traceparent="00-a-b-01")
    assert isinstance(made, Message)
    assert "ce-document" not in made.attributes
    assert made.attributes["ce-source"] == "//x"
    assert made.attributes["traceparent"] == "00-a-b-01"
    assert all(len(text.encode()) <= 1024 for text in made.attributes.values())


def test_the_data_is_published_byte_for_byte() -> None:
    body, headers = request(us(meta=meta(base=3)), us(update_time=NOW - 9))
    message = run_capture(capture(body, headers, FLEET), unasked)
    assert isinstance(message, Message)
    assert message.data is body


def unasked(wanted: ReadTombstone) -> Found:
    raise AssertionError(f"{wanted} was read")

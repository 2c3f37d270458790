"""Messages as a worker reads them: the version from the bytes and the kind, or an error with its reason."""

from contextlib import suppress
from typing import Any

import pytest
from google.events.cloud.firestore_v1 import DocumentEventData as OfficialEvent
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from conflict.version import Version
from replication.changes.decode import Change, decode
from replication.changes.envelope import Kind
from replication.documents.metadata import Meta
from replication.documents.stored import dismantle, document_write, tombstone_write
from replication.documents.wire import DocumentEventData, set_micros
from replication.errors import EventError, Reason
from replication.ports import Message
from tests.support.fleets import CODEC, NOW, data, document, fleet, message, text

FLEET = fleet()
BODY = {"x": text("1")}
SNAPSHOT = dismantle(document("eu", "orders/1", BODY, update_time=1), path="orders/1", prefix="", codec=CODEC)
CONTEXT = Version({"us": NOW - 5, "eu": NOW - 90}, NOW + 7, "us", NOW - 5, SNAPSHOT.digest)


def eu(path: str = "orders/1", body: dict[str, Any] = BODY, *, update_time: int = NOW, **kwargs: Any) -> Any:
    return document("eu", path, body, update_time=update_time, **kwargs)


def change(*args: Any, **kwargs: Any) -> Change:
    return decode(message(*args, **kwargs), FLEET)


def test_a_create_is_its_replica_s_first_write() -> None:
    made = change("write", "eu", eu())
    assert made == Change(
        "orders/1",
        Kind.WRITE,
        "eu",
        Version({"eu": NOW}, NOW, "eu", NOW, SNAPSHOT.digest),
        SNAPSHOT.body,
        NOW,
    )


@pytest.mark.parametrize("carrier", ["value", "old_value"])
def test_the_context_is_the_value_s_repl_else_the_old_value_s(carrier: str) -> None:
    meta = Meta(CONTEXT, base=0, read=NOW)
    value = eu(meta=meta if carrier == "value" else None)
    old = eu(update_time=NOW - 3, meta=meta if carrier == "old_value" else None)
    made = change("write", "eu", value, old)
    assert made.version == Version({"us": NOW - 5, "eu": NOW}, NOW + 8, "eu", NOW, SNAPSHOT.digest)


def test_a_delete_is_superseded_by_any_later_create_and_is_later_than_what_it_deleted() -> None:
    old = eu(update_time=NOW - 3, meta=Meta(CONTEXT, read=NOW))
    made = change("delete", "eu", None, old, time=NOW - 1_000_000)
    assert made.version == Version({"us": NOW - 5, "eu": NOW - 2}, NOW + 8, "eu", NOW - 2, deleted=True)
    assert made.body is None


def test_a_violating_delete_keeps_what_it_deleted_for_the_log() -> None:
    made = change("violation", "us", None, document("us", "wallets/1", BODY, update_time=NOW))
    assert made.version.deleted
    assert made.body == SNAPSHOT.body


def test_a_merge_carries_its_version() -> None:
    version = Version({"eu": 5, "us": 6}, 7, "us", 6, SNAPSHOT.digest, mixed=True)
    made = change("merged", "eu", eu(meta=Meta(version, merged=True)))
    assert (made.version, made.body) == (version, SNAPSHOT.body)


def test_a_merged_tombstone_is_the_delete_of_its_document() -> None:
    version = Version({"eu": 5}, 6, "eu", 5, deleted=True)
    prefix = "projects/shop/databases/eu/documents/"
    write = tombstone_write("orders/1", Meta(version), [], expire_at=0, prefix=prefix, codec=CODEC)
    set_micros(write.update.update_time, NOW)
    made = change("merged", "eu", write.update)
    assert (made.path, made.version, made.body) == ("orders/1", version, None)


def test_an_own_reference_reads_the_same_at_every_replica_and_a_foreign_one_stays() -> None:
    def digest(replica: str, target: str) -> bytes:
        value = document(replica, "orders/1", BODY, update_time=NOW)
        value.fields["ref"].array_value.values.add().reference_value = target
        return decode(message("write", replica, value), FLEET).version.digest

    own = [digest(one, f"projects/shop/databases/{one}/documents/a/1") for one in ("eu", "us")]
    foreign = digest("eu", "projects/shop/databases/mars/documents/a/1")
    assert own[0] == own[1] != foreign


def test_a_reference_into_another_replica_is_left_as_it_is_and_has_one_digest_everywhere() -> None:
    """Written at `us`, it is foreign; at `eu`, where it leads, it looks like one of its own."""
    there = "projects/shop/databases/eu/documents/a/1"
    value = document("us", "orders/1", BODY, update_time=NOW)
    value.fields["ref"].reference_value = there
    made = decode(message("write", "us", value), FLEET)
    assert made.body is not None
    arrived = document_write(
        "orders/1",
        made.body,
        Meta(made.version, read=NOW),
        prefix=FLEET.replica("eu").prefix,
        codec=FLEET.codec,
    ).update
    assert arrived.fields["ref"].reference_value == there
    set_micros(arrived.update_time, NOW)
    found = dismantle(arrived, path="orders/1", prefix=FLEET.replica("eu").prefix, codec=FLEET.codec)
    assert found.by_fleet, "otherwise it would count as an application's write, and go round"


def test_the_official_event_type_and_its_json_form_read_the_same() -> None:
    body = data(eu(meta=Meta(CONTEXT, read=NOW)), eu(update_time=NOW - 3))
    official = OfficialEvent.pb().FromString(body)
    sent = official.SerializeToString()
    as_json = json_format.MessageToJson(DocumentEventData.FromString(sent)).encode()
    attributes = {"replica": "eu", "kind": "write"}
    binary = decode(Message(sent, attributes), FLEET)
    assert decode(Message(as_json, attributes | {"ce-datacontenttype": "application/json"}), FLEET) == binary


def test_forged_metadata_is_named_and_counts_as_absent() -> None:
    value = eu()
    value.fields["_repl"].string_value = "mine"
    made = change("write", "eu", value)
    assert made.faults == ("it is not a map of firefleet's keys",)
    assert made.version.clock == {"eu": NOW}


def wrong() -> list[tuple[str, Message, Reason]]:
    good = message("write", "eu", eu())
    attributes = dict(good.attributes)
    unsealed = eu()
    unsealed.fields["_repl"].map_value.SetInParent()
    return [
        ("no attributes", Message(good.data, {}), Reason.MISSING_ATTRIBUTE),
        ("no kind", Message(good.data, {"replica": "eu"}), Reason.MISSING_ATTRIBUTE),
        ("other kind", Message(good.data, attributes | {"kind": "rename"}), Reason.UNKNOWN_KIND),
        ("unknown replica", Message(good.data, attributes | {"replica": "mars"}), Reason.UNKNOWN_REPLICA),
        ("other database", Message(good.data, attributes | {"replica": "us"}), Reason.FOREIGN_DATABASE),
        ("noise", Message(b"\xff\xff\xff", attributes), Reason.UNDECODABLE),
        ("empty", Message(b"", attributes), Reason.UNDECODABLE),
        (
            "noise as JSON",
            Message(b"{", attributes | {"ce-datacontenttype": "application/json"}),
            Reason.UNDECODABLE,
        ),
        ("a collection", message("write", "eu", eu("orders")), Reason.NOT_A_DOCUMENT),
        ("an empty segment", message("write", "eu", eu("orders//x/y")), Reason.NOT_A_DOCUMENT),
        ("the log", message("write", "eu", eu("_repl_conflicts/1")), Reason.NOT_A_DOCUMENT),
        ("no time", Message(data(None, eu()), {"replica": "eu", "kind": "delete"}), Reason.MISSING_ATTRIBUTE),
        ("a merge of nothing", message("merged", "eu", None, eu()), Reason.INVALID_METADATA),
        ("an unsealed merge", message("merged", "eu", unsealed), Reason.INVALID_METADATA),
        ("no tombstone", message("merged", "eu", eu("_repl_tombstones/1")), Reason.INVALID_METADATA),
    ]


@pytest.mark.parametrize(("bad", "reason"), [row[1:] for row in wrong()], ids=[row[0] for row in wrong()])
def test_what_can_never_be_applied_says_why(bad: Message, reason: Reason) -> None:
    with pytest.raises(EventError) as caught:
        decode(bad, FLEET)
    assert caught.value.reason is reason
    assert len(str(caught.value)) > 10


@given(
    st.binary(max_size=300),
    st.sampled_from(["write", "delete", "merged", "violation"]),
    st.booleans(),
)
def test_any_bytes_are_a_change_or_an_event_error(noise: bytes, kind: str, as_json: bool) -> None:
    attributes = {"replica": "eu", "kind": kind, "ce-time": "2026-01-01T00:00:00Z"}
    if as_json:
        attributes["ce-datacontenttype"] = "application/json"
    for body in (noise, data(eu()) + noise, data(eu())[: len(noise)]):
        # Any other error would fail the test, as it would fail the worker.
        with suppress(EventError):
            decode(Message(body, attributes), FLEET)

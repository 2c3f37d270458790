"""Capture over real HTTP: what it takes from Eventarc, and what it publishes."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from google.events.cloud import firestore_v1 as official
from google.protobuf import json_format

from conflict.version import deleted, written
from replication.documents.metadata import Meta, digest_of
from replication.documents.stored import document_write, tombstone_write
from replication.documents.wire import Document, DocumentEventData, Value, Write
from replication.errors import Transient
from tests.support.capturing import FLEET, NOW_US, Served


class TestWhatIsPublished:
    def test_a_write_is_published_byte_for_byte_with_its_attributes(self, served: Served) -> None:
        change = served.of_write()
        answer = served.deliver(change)
        assert (answer.status, answer.body) == (204, b"")
        [message] = served.messages()
        assert message.data == change.body
        assert message.attributes["replica"] == "eu"
        assert message.attributes["kind"] == "write"
        assert message.attributes["ce-id"] == change.headers["ce-id"]

    def test_the_emulators_base64_is_published_as_the_raw_protobuf(self, served: Served) -> None:
        change = served.of_write()
        assert served.deliver(change, body=base64.b64encode(change.body)).status == 204
        assert [message.data for message in served.messages()] == [change.body]

    def test_protobuf_json_is_published_as_json(self, served: Served) -> None:
        change = served.of_write()
        body = json_format.MessageToJson(DocumentEventData.FromString(change.body)).encode()
        answer = served.deliver(change, body=body, content_type="application/json; charset=utf-8")
        assert answer.status == 204
        [message] = served.messages()
        assert message.attributes["ce-datacontenttype"] == "application/json"
        assert json.loads(message.data) == json.loads(body)

    @pytest.mark.parametrize("encode", [bytes, base64.b64encode], ids=["raw", "base64"])
    @pytest.mark.parametrize("kind", ["created", "updated", "deleted"])
    def test_what_eventarcs_official_types_build_is_understood(
        self, served: Served, kind: str, encode: Callable[[bytes], bytes]
    ) -> None:
        """All three shapes: created has no old value, deleted no value, updated a mask."""
        full = "projects/p/databases/app-us/documents/orders/7"
        document = official.Document(
            name=full, fields={"total": {"integer_value": 7}}, update_time="2026-01-02T00:00:00.25Z"
        )
        before = official.Document(name=full, update_time="2026-01-01T00:00:00.5Z")
        parts: dict[str, dict[str, Any]] = {
            "created": {"value": document},
            "updated": {"value": document, "old_value": before, "update_mask": {"field_paths": ["total"]}},
            "deleted": {"old_value": document},
        }
        body = official.DocumentEventData.serialize(official.DocumentEventData(**parts[kind]))
        headers = {
            "content-type": "application/protobuf",
            "ce-id": "e-1",
            "ce-type": f"google.cloud.firestore.document.v1.{kind}",
            "ce-source": "//firestore.googleapis.com/projects/p/databases/app-us",
            "ce-time": "2026-01-03T00:00:00.123456Z",
            "ce-specversion": "1.0",
        }
        assert served.request(body=encode(body), headers=headers).status == 204
        [message] = served.messages()
        assert message.data == body
        assert message.attributes["replica"] == "us"
        assert message.attributes["kind"] == ("delete" if kind == "deleted" else "write")

    def test_events_are_taken_on_any_path(self, served: Served) -> None:
        for path in ("/", "/functions/projects/p/triggers/t", "/live", "/a%20b?c=d"):
            change = served.of_write()
            assert served.request(path=path, body=change.body, headers=change.headers).status == 204
        assert len(served.messages()) == 4

    def test_a_delete_is_published_to_its_own_replica_too(self, served: Served) -> None:
        assert served.deliver(served.of_delete()).status == 204
        [message] = served.messages()
        assert (message.attributes["kind"], message.attributes["heal"]) == ("delete", "1")

    def test_a_write_outside_the_primary_is_a_violation_for_that_replica_alone(self, served: Served) -> None:
        assert served.deliver(served.of_write("wallets/1", replica="us")).status == 204
        [message] = served.messages()
        assert (message.attributes["kind"], message.attributes["to"]) == ("violation", "us")

    def test_the_trace_context_is_passed_on(self, served: Served) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        served.deliver(served.of_write(), traceparent=trace)
        [message] = served.messages()
        assert message.attributes["traceparent"] == trace

    def test_a_header_in_utf8_does_not_garble_the_attribute(self, served: Served) -> None:
        """The emulator sends the path so; http.client takes latin-1, so the bytes are given as that."""
        change = served.of_write("orders/über")
        raw = {**change.headers, "ce-document": "orders/über".encode().decode("latin-1")}
        raw["ce-subject"] = f"documents/{raw['ce-document']}"
        assert served.request(body=change.body, headers=raw).status == 204
        [message] = served.messages()
        assert message.attributes["ce-document"] == "orders/über"


class TestWhatIsNotPublished:
    def test_the_echo_of_this_systems_own_write_is_dropped_and_counted(self, served: Served) -> None:
        body = Document(fields={"status": Value(string_value="new")}).SerializeToString(deterministic=True)
        version = written("us", NOW_US, digest_of(body), None)
        target = FLEET.replica("eu")
        write = document_write(
            "orders/1", body, Meta(version, base=0, read=NOW_US), prefix=target.prefix, codec=FLEET.codec
        )
        served.databases["eu"].commit([write], timeout=1)
        assert served.deliver(served.changes[-1]).status == 204
        assert served.messages() == []
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 1

    def test_the_echo_of_this_systems_own_delete_is_known_by_the_tombstone(self, served: Served) -> None:
        database = served.databases["eu"]
        update_time = database.set("orders/1", {"status": Value(string_value="new")})
        remove = Write(delete=database.prefix + "orders/1")
        tombstone = tombstone_write(
            "orders/1",
            Meta(deleted("us", update_time, NOW_US, None), base=update_time, read=NOW_US),
            (update_time,),
            expire_at=NOW_US + 10**12,
            prefix=database.prefix,
            codec=FLEET.codec,
        )
        served.changes.clear()
        database.commit([remove, tombstone], timeout=1)
        assert [served.deliver(change).status for change in served.changes] == [204, 204]
        assert served.messages() == []
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 2

    def test_a_local_collection_never_leaves_and_is_no_echo(self, served: Served) -> None:
        """Its deletes need no tombstone either: the database is not asked."""
        served.databases["eu"].error = Transient("down")
        assert served.deliver(served.of_write("chats/1")).status == 204
        assert served.deliver(served.of_delete("chats/1")).status == 204
        assert served.messages() == []
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 0

    def test_a_delete_by_ttl_is_dropped_and_is_no_echo(self, served: Served) -> None:
        assert served.deliver(served.of_delete(), ce_authtype="system").status == 204
        assert served.messages() == []
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 0

    @pytest.mark.parametrize("sides", [("value", "old_value"), ()], ids=["same time", "neither side"])
    def test_a_write_that_changed_nothing_is_dropped_and_counted(
        self, served: Served, sides: Sequence[str]
    ) -> None:
        """The emulator reports the guards of creates so."""
        change = served.of_write()
        document = DocumentEventData.FromString(change.body).value
        body = DocumentEventData(**dict.fromkeys(sides, document)).SerializeToString()
        assert served.deliver(change, body=body).status == 204
        assert served.messages() == []
        assert served.ledger.of("firefleet.capture.unchanged") == 1
        assert served.ledger.of("firefleet.changes", outcome="echo", source="eu") == 0

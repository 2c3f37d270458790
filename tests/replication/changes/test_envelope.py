"""Attributes: an event's, and those that go onto a message."""

import pytest

from replication.changes.envelope import (
    Kind,
    cloud_event,
    eventarc_headers,
    message_attributes,
    received_attributes,
)
from replication.limits import ATTRIBUTE_BYTES_MAX

DATABASE = {"project": "p", "database": "app-eu"}
TIME = "2026-01-01T00:00:00.5Z"


def test_a_cloud_event_names_its_database_and_its_time() -> None:
    assert cloud_event(**DATABASE, event_id="7", time=TIME) == {
        "ce-specversion": "1.0",
        "ce-id": "7",
        "ce-type": "google.cloud.firestore.document.v1.written",
        "ce-source": "//firestore.googleapis.com/projects/p/databases/app-eu",
        "ce-time": TIME,
    }


def test_eventarcs_headers_are_a_cloud_event_of_a_document() -> None:
    headers = eventarc_headers("orders/1", **DATABASE, location="eur3", event_id="7", time=TIME)
    assert headers == {
        **cloud_event(**DATABASE, event_id="7", time=TIME),
        "content-type": "application/protobuf",
        "ce-subject": "documents/orders/1",
        "ce-document": "orders/1",
        "ce-project": "p",
        "ce-database": "app-eu",
        "ce-location": "eur3",
        "ce-namespace": "(default)",
    }


@pytest.mark.parametrize(
    ("headers", "content_type"),
    [
        ({}, "application/protobuf"),
        ({"content-type": "Application/JSON; charset=utf-8"}, "application/json"),
        ({"ce-datacontenttype": "application/json"}, "application/json"),
        ({"content-type": "application/protobuf", "ce-datacontenttype": "x"}, "application/protobuf"),
    ],
    ids=str,
)
def test_the_content_type_is_the_requests_else_the_events_else_protobuf(
    headers: dict[str, str], content_type: str
) -> None:
    assert received_attributes(headers) == {"ce-datacontenttype": content_type}


def test_only_the_events_attributes_and_the_trace_are_received() -> None:
    headers = {"host": "x", "ce-id": "7", "traceparent": "00-a-b-01", "content-type": "application/protobuf"}
    assert received_attributes(headers).keys() == {"ce-id", "traceparent", "ce-datacontenttype"}


@pytest.mark.parametrize("letter", ["x", "é"])
def test_an_attribute_that_pub_sub_would_refuse_stays_behind(letter: str) -> None:
    """The limit is in bytes: it holds half as many of the letters that take two."""
    longest = letter * (ATTRIBUTE_BYTES_MAX // len(letter.encode()))
    kept = message_attributes({"ce-a": longest, "ce-b": f"{longest}x"}, replica="eu", kind=Kind.WRITE)
    assert kept == {"ce-a": longest, "replica": "eu", "kind": "write"}


def test_whom_a_message_is_for_is_said_only_where_it_is_not_for_all_others() -> None:
    healing = message_attributes({}, replica="eu", kind=Kind.DELETE, heal=True)
    assert healing == {"replica": "eu", "kind": "delete", "heal": "1"}
    directed = message_attributes({}, replica="eu", kind=Kind.MERGED, to="us")
    assert directed == {"replica": "eu", "kind": "merged", "to": "us"}

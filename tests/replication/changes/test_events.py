"""Eventarc's events as they are read, before anything is decided."""

from typing import Any

import pytest

from replication.changes.events import parse_event
from replication.errors import EventError, Reason
from tests.support.fleets import NOW, document, request, text


def us(value: str = "1", *, update_time: int = NOW) -> Any:
    return document("us", "orders/1", {"x": text(value)}, update_time=update_time)


def event(*args: Any, **kwargs: Any) -> Any:
    return parse_event(*request(*args, **kwargs))


def test_an_event_says_which_document_changed_and_how() -> None:
    made = event(us("2"), us(update_time=NOW - 9))
    assert (made.project, made.database, made.path) == ("shop", "us", "orders/1")
    assert (made.deleted, made.unchanged, made.replaced) == (False, False, NOW - 9)
    assert made.take_value() == us("2")


def test_a_create_replaces_nothing() -> None:
    made = event(us())
    assert (made.deleted, made.unchanged, made.old, made.replaced) == (False, False, None, 0)


def test_a_delete_is_of_the_document_before_it() -> None:
    made = event(None, us())
    assert (made.path, made.deleted, made.unchanged, made.replaced) == ("orders/1", True, False, NOW)


@pytest.mark.parametrize("sides", [(us(), us("0")), ()], ids=["same update time", "neither side"])
def test_nothing_happened_where_both_sides_are_of_one_time_or_absent(sides: Any) -> None:
    assert event(*sides).unchanged


def test_the_document_is_handed_out_only_once() -> None:
    """Whoever takes it destroys it: what is left must not be read as a document."""
    made = event(us())
    made.take_value().Clear()
    with pytest.raises(AssertionError, match=r"orders/1.*taken before"):
        made.take_value()
    assert not made.deleted


def test_a_deleted_document_cannot_be_taken() -> None:
    with pytest.raises(AssertionError, match="orders/1"):
        event(None, us()).take_value()


def test_firestores_own_deletes_are_known_by_their_principal() -> None:
    assert event(None, us(), ce_authtype="system").by_system
    assert not event(None, us(), ce_authtype="api_key").by_system
    assert not event(None, us()).by_system


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"ce-id": ""}, Reason.MISSING_ATTRIBUTE),
        ({"ce-time": ""}, Reason.MISSING_ATTRIBUTE),
        ({"ce-type": "google.cloud.storage.object.v1.finalized"}, Reason.UNKNOWN_KIND),
        ({"ce-time": "yesterday"}, Reason.UNDECODABLE),
        ({"ce-time": "2026-01-01T00:00:00"}, Reason.UNDECODABLE),
    ],
    ids=str,
)
def test_what_is_no_eventarc_event_is_refused_with_its_reason(headers: dict[str, str], reason: Reason) -> None:
    with pytest.raises(EventError) as caught:
        event(us(), **{name.replace("-", "_"): value for name, value in headers.items()})
    assert caught.value.reason is reason

"""What is a valid event, what is wrong with the others, and which events are the same."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.analytics.schema import DEPTH_MAX, EVENT_BYTES_MAX, parse_time
from replication.errors import EventError, Reason
from replication.ports import Message
from tests.support.analytics import decoded, message, schema, settings, swipe, view


def refusal(sent: Message) -> tuple[Reason, str]:
    with pytest.raises(EventError) as caught:
        schema().decode(sent)
    return caught.value.reason, str(caught.value)


def test_an_event_is_decoded_with_its_region_and_time() -> None:
    event = decoded(message(swipe("x", time="2027-01-15T09:00:00.25+01:00")))
    assert (event.id, event.type, event.region, event.user) == ("x", "swipe", "eu", "ann")
    assert event.time == 1_800_000_000_250_000


def test_fields_that_the_type_does_not_name_may_hold_anything() -> None:
    assert decoded(message(view(payload={"page": "a", "millis": 1, "f0": [], "model_config": {"x": None}})))


@pytest.mark.parametrize(
    ("sent", "reason", "text"),
    [
        (Message(b"{", {"region": "eu", "type": "swipe"}), Reason.UNDECODABLE, "not JSON"),
        (Message(b"\xff\xfe", {"region": "eu", "type": "swipe"}), Reason.UNDECODABLE, "not JSON"),
        (Message(b"[]", {"region": "eu", "type": "swipe"}), Reason.INVALID, "event: "),
        (Message(b"{}", {"type": "swipe"}), Reason.MISSING_ATTRIBUTE, "'region'"),
        (Message(b"{}", {"region": "eu"}), Reason.MISSING_ATTRIBUTE, "'type'"),
        (message(swipe(), region="mars"), Reason.UNKNOWN_REGION, "'mars'"),
        (message(swipe(), type="like"), Reason.UNKNOWN_TYPE, "'like'"),
        (message(swipe(), type="page_view"), Reason.INVALID, "type: "),
        (message(swipe(id=7)), Reason.INVALID, "id: "),
        (message(swipe(id="")), Reason.INVALID, "id: "),
        (message(swipe(id="x" * 129)), Reason.INVALID, "id: "),
        (message(swipe(user=None)), Reason.INVALID, "user: "),
        (message(swipe(extra=1)), Reason.INVALID, "extra: "),
        (message(swipe(payload={"target": "bob"})), Reason.INVALID, "payload.session: Field required"),
        (message(swipe(payload={"target": 1, "session": "s"})), Reason.INVALID, "payload.target: "),
        (message(view(payload={"page": "a", "millis": 1.5})), Reason.INVALID, "payload.millis: "),
        (message(view(payload={"page": "a", "millis": True})), Reason.INVALID, "payload.millis: "),
        (message(view(payload={"page": "a", "millis": 1, "score": "1"})), Reason.INVALID, "payload.score"),
        (message(view(payload={"page": "a", "millis": 1, "at": "now"})), Reason.INVALID, "payload.at: "),
        (message(view(payload={"page": "a", "millis": 1, "tags": {}})), Reason.INVALID, "payload.tags: "),
        *(
            (message(swipe(time=time)), Reason.INVALID, "time: ")
            for time in (5, "1700000000", "2027-01-15", "2027-01-15T08:00:00", "2027-13-15T08:00:00Z", None)
        ),
        (message(swipe(payload={"x": "y" * EVENT_BYTES_MAX})), Reason.TOO_LARGE, "at most"),
    ],
)
def test_a_wrong_event_is_refused_with_its_reason(sent: Message, reason: Reason, text: str) -> None:
    found, told = refusal(sent)
    assert found is reason
    assert text in told


def test_a_refusal_does_not_repeat_the_values() -> None:
    assert "secret" not in refusal(message(swipe(user={"name": "secret"}, time="secret")))[1]


def test_optional_fields_of_the_right_kind_are_taken() -> None:
    payload = {
        **{"page": "a", "millis": 1, "score": 2, "at": "2027-01-15T08:00:00Z"},
        **{"device": {"os": "x"}, "tags": [1, "a"], "new": False},
    }
    assert decoded(message(view(payload=payload)))


def test_nesting_is_bounded_and_what_is_merely_wide_is_not_refused() -> None:
    deep: Any = 1
    for _ in range(DEPTH_MAX):
        deep = [deep]
    reason, told = refusal(message(view(payload={"page": "a", "millis": 1, "deep": deep})))
    assert (reason, "nest deeper" in told) == (Reason.INVALID, True)
    wide = [{"a": [1]} for _ in range(100)]
    assert decoded(message(view(payload={"page": "a", "millis": 1, "wide": wide})))


def test_a_bottomless_event_is_refused_and_not_a_crash() -> None:
    data = orjson.dumps(view())[:-2] + b',"x":' + b"[" * 900 + b"]" * 900 + b"}}"
    assert refusal(Message(data, {"region": "eu", "type": "page_view"}))[0] is Reason.INVALID


def test_an_event_of_another_replicas_region_is_foreign_and_an_unknown_one_is_not() -> None:
    regional = settings(regions={"eu": ["eu", "mena"]})
    eu, us = schema(regional), schema(regional, replica="us")
    mena, mars = message(swipe(), region="mena"), message(swipe(), region="mars")
    assert (eu.is_foreign(mena), us.is_foreign(mena)) == (False, True)
    assert (eu.is_foreign(mars), us.is_foreign(mars)) == (False, False)
    assert eu.decode(mena).region == "mena"


def test_the_type_for_metrics_is_one_of_the_configuration_or_unknown() -> None:
    assert schema().type_of(message(swipe())) == "swipe"
    assert schema().type_of(message(swipe(), type="x" * 500)) == "unknown"


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    one, other = decoded(message(left)), decoded(message(right))
    return bool(set(one.identities) & set(other.identities))


def test_events_with_one_id_are_the_same_across_types() -> None:
    assert same(swipe("x"), view("x"))
    assert not same(view("x"), view("y"))


def test_events_with_one_key_are_the_same_within_its_window_only() -> None:
    payload = {"target": "bob", "session": "s"}
    monday, midnight = "2027-01-15T23:59:59Z", "2027-01-16T00:00:00Z"
    assert same(swipe("x", payload=payload), swipe("y", payload=payload, time=monday))
    assert not same(swipe("x", payload=payload, time=monday), swipe("y", payload=payload, time=midnight))
    assert not same(swipe("x", payload=payload), swipe("y", payload=payload, user="bob"))
    assert not same(swipe("x", payload=payload), swipe("y", payload={**payload, "target": "eve"}))


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_no_two_keys_run_together(a: str, b: str, c: str, d: str) -> None:
    left, right = {"target": a, "session": b}, {"target": c, "session": d}
    assert same(swipe("x", payload=left), swipe("y", payload=right)) == (left == right)


def test_identities_are_pinned_because_stored_documents_are_named_by_them() -> None:
    """A library upgrade that changes these would store every redelivered event a second time."""
    event = decoded(message(swipe("e1")))
    assert [identity.hex() for identity in event.identities] == [
        "4ddafa5ce3d839e088e37dc884ee8735",
        "b05125c400f8d471a4493eb5a306dfb2",
    ]


@given(st.integers(0, 253_402_300_799 * 10**6))
def test_times_are_read_as_they_are_checked(micros: int) -> None:
    from replication.documents.wire import time_text

    text = time_text(micros)
    assert decoded(message(swipe(time=text))).time == micros == parse_time(text)

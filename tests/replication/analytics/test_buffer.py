"""The buffer: what becomes of each message, when a flush is due, and that everything in it is bounded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.analytics.buffer import COPY_BYTES, HELD_OVERHEAD_BYTES, Buffer, Fate
from replication.analytics.recency import Recent, TokenBuckets
from replication.configuration.analytics import Throttle
from replication.documents.wire import MICROS
from tests.support.analytics import T0, TYPES, offer, settings, swipe, view

PAYLOAD = {"target": "bob", "session": "s"}


def buffer(**section: Any) -> Buffer:
    return Buffer(settings(**section), now=0.0)


def throttled(**throttle: Any) -> dict[str, Any]:
    return {"types": {**TYPES, "page_view": {**TYPES["page_view"], "throttle": throttle}}}


def test_a_copy_of_a_held_event_is_settled_with_it_and_not_before() -> None:
    """It may be a redelivery of that very message: acknowledging it would lose the event in a crash."""
    box = buffer()
    assert offer(box, swipe("x"), 1) is Fate.HELD
    assert offer(box, swipe("x"), 1, delivery=2) is Fate.COPY
    assert offer(box, swipe("y", payload=swipe("x")["payload"]), 2) is Fate.COPY
    [one] = box.take(10.0)
    assert offer(box, swipe("x"), 3) is Fate.COPY  # while it is being written, too
    assert box.stored(one) == ["a1.1", "a1.2", "a2.1", "a3.1"]
    assert offer(box, swipe("x"), 4) is Fate.DUPLICATE
    assert (box.depth, box.bytes) == (0, 0)


def test_a_key_is_taken_for_its_window_and_an_id_for_good() -> None:
    box = buffer()
    offer(box, swipe("x", payload=PAYLOAD), 1)
    [one] = box.take(10.0)
    box.stored(one)
    assert offer(box, swipe("y", payload=PAYLOAD), 2) is Fate.DUPLICATE
    assert offer(box, swipe("z", payload=PAYLOAD, time="2027-01-17T08:00:00Z"), 3) is Fate.HELD
    assert offer(box, view("x"), 4) is Fate.DUPLICATE


def test_copies_of_a_refused_event_get_a_try_of_their_own() -> None:
    box = buffer()
    offer(box, swipe("x", payload=PAYLOAD), 1)
    offer(box, swipe("y", payload=PAYLOAD), 2)
    [one] = box.take(10.0)
    assert box.given_up(one)[1:] == ["a2.1"]
    assert offer(box, swipe("y", payload=PAYLOAD), 2, delivery=2) is Fate.HELD


def test_what_is_released_may_come_again() -> None:
    box = buffer()
    offer(box, view("x"), 1)
    offer(box, view("x"), 1, delivery=2)
    [one] = box.take(10.0)
    assert box.given_up(one) == ["a1.1", "a1.2"]
    assert (box.depth, box.bytes) == (0, 0)
    assert offer(box, view("x"), 1, delivery=3) is Fate.HELD


def test_a_closed_buffer_takes_nothing() -> None:
    box = buffer()
    box.close()
    assert offer(box, view("x"), 1) is Fate.CLOSED
    assert box.take(10.0) == []


def test_flushes_keep_the_beat_even_when_one_begins_late() -> None:
    box = buffer()
    assert (box.wait(0.0), box.wait(9.5), box.wait(10.0)) == (10.0, 0.5, 0.0)
    box.take(10.3)
    assert box.wait(10.3) == pytest.approx(9.7)
    box.take(47.0)
    assert box.wait(47.0) == 10.0, "beats that were missed are not made up for"


def test_enough_events_or_bytes_make_a_flush_due_at_once() -> None:
    by_events, by_bytes = buffer(flush={"events": 2}), buffer(flush={"bytes": "4KB"})
    for box in (by_events, by_bytes):
        offer(box, view("x"), 1)
        assert box.wait(0.0) == 10.0
        offer(box, view("y"), 2)
    offer(by_bytes, view("z"), 3)
    assert (by_events.wait(0.0), by_bytes.wait(0.0)) == (0.0, 0.0)
    by_events.take(3.0)
    assert by_events.wait(3.0) == 10.0


def test_at_the_bound_nothing_may_be_pulled_until_something_is_settled() -> None:
    box = buffer(buffer={"events": 3}, flush={"events": 3})
    assert box.reserve(500) == 3
    for number in range(3):
        offer(box, view(str(number)), number)
    box.unreserve(3)
    taken = box.take(1.0)
    assert box.reserve(500) == 0
    box.stored(taken[0])
    assert box.reserve(500) == 1


def test_places_that_are_promised_are_not_promised_twice() -> None:
    box = buffer(buffer={"events": 5}, flush={"events": 5})
    assert (box.reserve(3), box.reserve(3), box.reserve(3)) == (3, 2, 0)


def test_copies_take_places_too() -> None:
    box = buffer(buffer={"events": 3}, flush={"events": 3})
    for delivery in range(1, 4):
        offer(box, view("x"), 1, delivery=delivery)
    assert (box.depth, box.reserve(1)) == (3, 0)
    assert box.bytes > 2 * COPY_BYTES


def test_the_bound_in_bytes_follows_the_size_of_what_comes() -> None:
    box = buffer(buffer={"bytes": "1MB", "events": 100_000}, flush={"bytes": "1MB", "events": 100_000})
    first = box.reserve(10_000)
    assert first <= 1_000_000 / HELD_OVERHEAD_BYTES
    box.unreserve(first)
    for number in range(10):
        offer(box, view(str(number), payload={"page": "x" * 90_000, "millis": 1}), number)
    assert box.reserve(10_000) < 20


def test_an_empty_buffer_takes_one_message_however_large_messages_are() -> None:
    box = buffer(buffer={"bytes": "1KB"}, flush={"bytes": "1KB"})
    assert box.reserve(500) == 1


def test_what_exceeds_a_users_rate_is_dropped_and_stays_dropped_when_it_comes_again() -> None:
    box = buffer(**throttled(rate=1.0, burst=2))
    fates = [offer(box, view(str(number)), number) for number in range(4)]
    assert fates == [Fate.HELD, Fate.HELD, Fate.THROTTLED, Fate.THROTTLED]
    assert offer(box, view("3"), 3, delivery=2, published=T0 + 9 * MICROS) is Fate.DUPLICATE
    assert offer(box, view("4", user="bob"), 4) is Fate.HELD
    assert offer(box, view("5"), 5, published=T0 + MICROS) is Fate.HELD


def test_duplicates_cost_no_tokens() -> None:
    box = buffer(**throttled(rate=1.0, burst=2))
    for number in range(9):
        offer(box, view("same"), number)
    assert offer(box, view("other"), 10) is Fate.HELD


def test_a_sample_is_kept_by_id_and_marked_with_its_share() -> None:
    def sampled() -> dict[str, float]:
        box = buffer(**throttled(rate=1.0, burst=1, sample=0.25))
        for number in range(1_000):
            offer(box, view(f"e{number}"), number)
        return {one.event.id: one.sampled for one in box.take(10.0)}

    kept = sampled()
    assert kept.pop("e0") == 1.0
    assert 200 < len(kept) < 300
    assert set(kept.values()) == {0.25}
    assert sampled().keys() - {"e0"} == kept.keys()


def test_the_oldest_is_by_publish_time_over_waiting_and_flushing() -> None:
    box = buffer()
    assert box.oldest == 0
    offer(box, view("x"), 1, published=T0 + 5)
    box.take(10.0)
    offer(box, view("y"), 2, published=T0 + 3)
    assert box.oldest == T0 + 3


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 9), st.sampled_from(["offer", "take", "stored", "release"]))
    )
)
def test_depth_and_bytes_are_what_is_held(steps: list[tuple[int, int, str]]) -> None:
    """Against a model that keeps every delivery."""
    box, model, taken = buffer(recent=4), dict[str, list[str]](), list[Any]()
    for number, (event, user, step) in enumerate(steps):
        match step:
            case "offer":
                fate = offer(box, view(f"e{event}", user=f"u{user}"), number)
                if fate in (Fate.HELD, Fate.COPY):
                    model.setdefault(f"e{event}", []).append(f"a{number}.1")
                assert (fate is Fate.COPY) == (len(model.get(f"e{event}", [])) > 1)
            case "take":
                taken += box.take(float(number))
            case _ if taken:
                one = taken.pop(0)
                settled = box.stored(one) if step == "stored" else box.given_up(one)
                assert settled == model.pop(one.event.id)
        assert box.depth == sum(map(len, model.values()))
        assert (box.bytes > 0) == bool(model)


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    recent = Recent(2)
    recent.add([b"a", b"b"])
    recent.add([b"c"])
    assert (len(recent), b"a" in recent, b"b" in recent, b"c" in recent) == (2, False, True, True)


RULE = Throttle(rate=2.0, burst=3)


def test_a_bucket_fills_at_its_rate_up_to_its_burst() -> None:
    buckets = TokenBuckets({"view": RULE}, users=10)
    assert [buckets.take("view", "ann", time=0) for _ in range(4)] == [True, True, True, False]
    half = MICROS // 2
    assert [buckets.take("view", "ann", time=half) for _ in range(2)] == [True, False]
    assert [buckets.take("view", "ann", time=100 * MICROS) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("other", "ann", time=0)


def test_a_late_message_gains_nothing_from_its_place_in_the_past() -> None:
    buckets = TokenBuckets({"view": RULE}, users=10)
    assert buckets.take("view", "ann", time=100 * MICROS)
    assert [buckets.take("view", "ann", time=0) for _ in range(3)] == [True, True, False]


def test_any_number_of_users_take_bounded_memory() -> None:
    buckets = TokenBuckets({"view": RULE}, users=100)
    for number in range(10_000):
        buckets.take("view", f"user-{number}", time=0)
    assert len(buckets) == 100


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=60))
def test_no_more_pass_than_the_burst_and_the_rate_allow(gaps: list[int]) -> None:
    buckets, time, passed = TokenBuckets({"view": RULE}, users=10), 0, 0
    for gap in gaps:
        time += gap
        passed += buckets.take("view", "ann", time=time)
    assert passed <= RULE.burst + time / MICROS * RULE.rate + 1e-6
    assert passed >= min(len(gaps), RULE.burst)

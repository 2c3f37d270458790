"""Documents of both layouts, and the events that come out of them again."""

import random
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from replication.analytics.packing import PACK_EVENTS_MAX, PackedUnit, PackError, events_in, pack, single
from replication.analytics.reader import Tally, read_events
from replication.analytics.schema import EVENT_BYTES_MAX, PACK_BYTES_MAX
from replication.documents.plain import to_plain
from replication.documents.wire import MICROS
from replication.errors import EventError, Reason
from replication.limits import DOCUMENT_BYTES_MAX
from tests.support.analytics import T0, held, output, swipe, view


def bodies(units: list[PackedUnit]) -> list[dict[str, Any]]:
    return [event.body for unit in units for event in events_in(unit.write.update)]


def test_events_come_out_as_they_went_in_with_their_region() -> None:
    events = [
        view(f"e{number}", payload={"page": "größer\n", "millis": number, "x": [1.5, None]})
        for number in range(3)
    ]
    units = list(pack([held(body) for body in events], output()))
    assert len(units) == 1
    assert bodies(units) == [{**body, "region": "eu"} for body in events]
    singles = [single(held(body), output()) for body in events]
    assert [{**body, "time": "2027-01-15T08:00:00Z"} for body in bodies(singles)] == bodies(units)


def test_a_pack_says_what_it_holds() -> None:
    [unit] = pack(
        [
            held(swipe("a", time="2027-01-15T08:00:01Z"), published=T0),
            held(swipe("b", time="2027-01-15T07:00:00Z"), published=T0 + MICROS),
        ],
        output(),
    )
    fields = {name: to_plain(value) for name, value in unit.write.update.fields.items()}
    assert fields["events"]
    assert (fields["format"], fields["type"], fields["region"], fields["count"]) == (1, "swipe", "eu", 2)
    assert (fields["first"].isoformat(), fields["last"].isoformat()) == (
        "2027-01-15T07:00:00+00:00",
        "2027-01-15T08:00:01+00:00",
    )
    assert (fields["key"], fields["window"]) == (["user", "target", "session"], 86_400 * MICROS)
    assert fields["expire_at"].timestamp() == (T0 + MICROS) / MICROS + 90 * 86_400
    assert (fields["batch"], "sampled" in fields) == ("w-1", False)
    assert unit.path == f"analytics_events/{unit.write.update.name.rsplit('/', 1)[1]}"
    assert unit.write.current_document.exists is False
    assert unit.write.current_document.WhichOneof("condition_type") == "exists"


def test_a_pack_holds_one_type_and_one_share_and_at_most_500_events() -> None:
    many = [held(view(f"v{number}"), number) for number in range(PACK_EVENTS_MAX + 1)]
    mixed = [held(swipe("s")), held(view("sampled"), sampled=0.5), *many]
    units = list(pack(mixed, output()))
    assert sorted(len(unit.members) for unit in units) == [1, 1, 1, PACK_EVENTS_MAX]
    assert all(len({one.event.type for one in unit.members}) == 1 for unit in units)
    [sampled] = [body for body in bodies(units) if "sampled" in body]
    assert (sampled["id"], sampled["sampled"]) == ("sampled", 0.5)


def test_packs_stay_within_900_kb_and_a_document_within_firestores_limit() -> None:
    noise = random.Random(1)
    payloads = [{"page": noise.randbytes(100_000).hex(), "millis": number} for number in range(12)]
    large = [held(view(f"e{at}", payload=payload), at) for at, payload in enumerate(payloads)]
    units = list(pack(large, output()))
    assert len(units) == 3
    assert all(unit.bytes < DOCUMENT_BYTES_MAX for unit in units)
    assert all(unit.write.update.fields["size"].integer_value <= PACK_BYTES_MAX for unit in units)


def test_the_largest_event_that_is_taken_fits_into_a_pack() -> None:
    shell = len(orjson.dumps(view("e", payload={"page": "", "millis": 1})))
    largest = held(view("e", payload={"page": "x" * (EVENT_BYTES_MAX - shell), "millis": 1}))
    [unit] = pack([largest], output())
    assert unit.write.update.fields["size"].integer_value == PACK_BYTES_MAX
    assert len(bodies([unit])) == 1


def test_compression_is_used_where_it_pays_and_both_forms_are_read() -> None:
    alike = [held(view(f"e{number}"), number) for number in range(100)]
    unlike = [held(view("a"))]
    [packed], [plain] = pack(alike, output()), pack(unlike, output())
    assert packed.write.update.fields["encoding"].string_value == "zstd"
    assert packed.bytes < packed.write.update.fields["size"].integer_value / 5
    assert plain.write.update.fields["encoding"].string_value == "json"
    assert (len(bodies([packed])), len(bodies([plain]))) == (100, 1)


@given(st.permutations(range(5)))
def test_a_documents_name_follows_from_its_events_in_whatever_order(order: list[int]) -> None:
    def name(numbers: list[int]) -> str:
        [unit] = pack([held(view(f"e{number}"), number) for number in numbers], output(batch=str(numbers)))
        return unit.path

    assert name(order) == name(list(range(5)))
    assert name(order) != name(order[:4])


def test_a_single_events_document_is_named_by_its_key_or_else_its_id() -> None:
    first = single(held(swipe("a", payload={"target": "t", "session": "s"})), output())
    again = single(held(swipe("b", payload={"target": "t", "session": "s"})), output())
    assert first.path == again.path
    assert single(held(view("a")), output()).path != single(held(view("b")), output()).path


def test_a_number_firestore_cannot_hold_is_an_error_of_that_event() -> None:
    number = 2**63  # JSON's own parser takes it
    with pytest.raises(EventError, match="Firestore cannot hold the payload") as caught:
        single(held(view("a", payload={"page": "p", "millis": 1, "n": number})), output())
    assert caught.value.reason is Reason.INVALID


def test_the_reader_gives_each_event_once_by_id_and_by_key() -> None:
    key = {"target": "t", "session": "s"}
    documents = [
        unit.write.update
        for members in (
            [held(swipe("a")), held(swipe("b", payload=key))],
            [held(swipe("b", payload=key)), held(swipe("c", payload=key)), held(swipe("d"))],
            [held(view("a"))],
        )
        for unit in pack(members, output())
    ]
    tally = Tally()
    assert [event.body["id"] for event in read_events(documents, tally)] == ["a", "b", "d"]
    assert (tally.documents, tally.events, tally.copies) == (3, 3, 3)
    assert list(read_events(documents)) == list(read_events(documents))


def test_the_reader_counts_only_what_is_wanted() -> None:
    documents = [
        unit.write.update for _ in range(2) for unit in pack([held(swipe("a")), held(view("b"))], output())
    ]
    tally = Tally()
    found = read_events(documents, tally, wanted=lambda event: event.body["id"] == "b")
    assert [event.body["id"] for event in found] == ["b"]
    assert (tally.events, tally.copies) == (1, 1)


def test_reading_both_layouts_leaves_out_copies_across_them() -> None:
    documents = [single(held(view("a")), output()).write.update]
    documents += [unit.write.update for unit in pack([held(view("a")), held(view("b"))], output())]
    assert [event.body["id"] for event in read_events(documents)] == ["a", "b"]


def broken(**changes: Any) -> Any:
    [unit] = pack([held(view("a"))], output())
    document = unit.write.update
    for name, value in changes.items():
        if value is None:
            del document.fields[name]
        elif isinstance(value, bytes):
            document.fields[name].bytes_value = value
        else:
            document.fields[name].integer_value = value
    return document


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "format 2 is not 1; update firefleet"),
        ({"format": None}, "not an analytics event, because it has no id"),
        ({"events": b"["}, "cannot be read"),
    ],
)
def test_a_document_that_cannot_be_read_is_named(changes: dict[str, Any], text: str) -> None:
    document = broken(**changes)
    with pytest.raises(PackError, match=text) as caught:
        list(events_in(document))
    assert str(caught.value).startswith(document.name)


def test_a_forged_length_does_not_fill_the_memory() -> None:
    document = broken()
    document.fields["encoding"].string_value = "zstd"
    document.fields["events"].bytes_value = zstandard.compress(b" " * (PACK_BYTES_MAX + 1))
    with pytest.raises(PackError, match="larger than any"):
        list(events_in(document))
    document.fields["events"].bytes_value = b"no zstd at all"
    with pytest.raises(PackError, match="cannot be read"):
        list(events_in(document))

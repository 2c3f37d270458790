"""Every value that Firestore stores arrives as it was written, under every name it allows."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from google.cloud.firestore import GeoPoint
from google.cloud.firestore_v1.vector import Vector

from replication.documents.wire import Document
from tests.emulator.replicas import Replicas
from tests.support.polling import eventually

MICROSECOND = datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "smallest": -(2**63),
    "largest": 2**63 - 1,
    "one": 1,
    "one as a double": 1.0,
    "nan": math.nan,
    "minus zero": -0.0,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "tiny": 5e-324,
    "time": MICROSECOND,
    "long ago": datetime(1, 1, 1, tzinfo=UTC),
    "far away": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "text": "naïve ✓ 漢字 🙂 \x00",
    "empty text": "",
    "bytes": bytes(range(256)),
    "no bytes": b"",
    "place": GeoPoint(-90.0, 179.999999),
    "vector": Vector([1.0, -0.0, 2.5]),
    "empty map": {},
    "empty array": [],
    "nested": {"a": {"b": [{"c": [1, 1.0, True, None, {}]}, {"d": []}]}},
    "a.b": "dots",
    "back`tick": "ticks",
    'quo"te': "quotes",
    "ключ 🔑": "unicode",
    " ": "a space",
}


def write_and_compare(replicas: Replicas, path: str, fields: dict[str, Any]) -> Document:
    """Write at one replica; all must come to hold the very bytes that this replica holds."""
    replicas.clients["us"].document(*path.split("/")).set(fields)
    held = replicas.equal(below=path)
    assert path in held
    stored = Document.FromString(held[path])
    assert sorted(stored.fields) == sorted(fields)
    return stored


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_every_type_is_kept_by_one_replica(name: str, kept: Document) -> None:
    """What arrived is what was written, in type and content."""
    written = VALUES[name]
    value = kept.fields[name]
    match written:
        case bool():
            assert (value.WhichOneof("value_type"), value.boolean_value) == ("boolean_value", written)
        case int():
            assert (value.WhichOneof("value_type"), value.integer_value) == ("integer_value", written)
        case float():
            assert value.WhichOneof("value_type") == "double_value"
            assert math.copysign(1, value.double_value) == math.copysign(1, written)
            assert value.double_value == written or (math.isnan(written) and math.isnan(value.double_value))
        case datetime():
            assert value.timestamp_value.ToDatetime(tzinfo=UTC) == written
        case str():
            assert value.string_value == written
        case bytes():
            assert value.bytes_value == written
        case None:
            assert value.WhichOneof("value_type") == "null_value"
        case GeoPoint():
            assert value.geo_point_value.longitude == written.longitude
        case Vector():
            assert value.map_value.fields["__type__"].string_value == "__vector__"
        case dict():
            assert value.WhichOneof("value_type") == "map_value"
            assert sorted(value.map_value.fields) == sorted(written)
        case list():
            assert (value.WhichOneof("value_type"), len(value.array_value.values)) == ("array_value", 0)


@pytest.fixture(scope="module")
def kept(replicas: Replicas) -> Document:
    """All values, written at `us`, as every replica holds them."""
    return write_and_compare(replicas, "values/all", VALUES)


def test_references_lead_to_the_reader_s_own_copy_and_foreign_ones_stay(replicas: Replicas) -> None:
    us = replicas.clients["us"]
    own = us.document("values", "target")
    own.set({"x": 1})
    us.document("values", "references").set({"own": own, "deep": {"list": [own]}})
    replicas.equal(below="values/")
    for client in replicas.clients.values():
        found = client.document("values", "references").get()
        assert found.get("own") == client.document("values", "target")
        assert found.get("deep") == {"list": [client.document("values", "target")]}
        assert found.get("own").get().get("x") == 1
    # As the client cannot read one that leads elsewhere, only the stored form is compared.
    elsewhere = replicas.clients["eu"].document("values", "target")
    us.document("values", "foreign").set({"theirs": elsewhere})
    expected = elsewhere._document_path
    held = {name: found["values/foreign"] for name, found in foreign(replicas).items()}
    assert {name: stored.fields["theirs"].reference_value for name, stored in held.items()} == {
        # At `eu` it is the replica's own, so the reading makes it relative.
        "eu": "values/target",
        "us": expected,
        "apac": expected,
    }


def foreign(replicas: Replicas) -> dict[str, Any]:
    eventually(lambda: all("values/foreign" in found for found in replicas.everything().values()), every=0.5)
    return replicas.everything()


@pytest.mark.parametrize(
    "path",
    [
        "values/with space",
        "values/ünï 漢🙂",
        "values/a.b`c\"d'e",
        "values/%2F?x=1&y#z",
        "values/(default)",
        "values/_x",
        "values/a/b/c/d/e/f/g/h/i",
        "values/" + "n" * 1400,
    ],
    ids=lambda path: path[:30],
)
def test_documents_under_every_kind_of_name_arrive_and_are_deleted(replicas: Replicas, path: str) -> None:
    segments = path.split("/")
    segments += ["x"] * (len(segments) % 2)
    named = "/".join(segments)
    write_and_compare(replicas, named, {"x": path})
    replicas.clients["apac"].document(*segments).delete()
    assert named not in replicas.equal(below=named)


def test_a_document_of_900_kb_arrives(replicas: Replicas) -> None:
    stored = write_and_compare(replicas, "values/large", {"x": "x" * 900_000, "b": b"\xff" * 1000})
    assert len(stored.fields["x"].string_value) == 900_000

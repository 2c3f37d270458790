"""What every `Database` promises, on every backend."""

import math
from typing import Any

import pytest

from replication.documents.wire import Document, Value, Write, micros
from replication.errors import ConditionFailed, Refused
from replication.ports import Database
from tests.contract.documents import (
    array,
    codes,
    fields_of,
    integer,
    look,
    mapping,
    nested,
    overwrite,
    put,
    remove,
    text,
)
from tests.support.polling import PATIENCE_S

OK, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION = 0, 3, 5, 6, 9
MIB = 1_048_576

VALUES: dict[str, Any] = {
    "null": Value(null_value=0),
    "boolean": Value(boolean_value=False),
    "integer": integer(-(2**63)),
    "integer_large": integer(2**63 - 1),
    "double": Value(double_value=0.1),
    "double_whole": Value(double_value=1.0),
    "negative_zero": Value(double_value=-0.0),
    "nan": Value(double_value=math.nan),
    "infinity": Value(double_value=-math.inf),
    "timestamp": Value(timestamp_value={"seconds": -62_135_596_800, "nanos": 1_000}),
    "string": text("é𝄞\0\n"),
    "string_empty": text(""),
    "bytes": Value(bytes_value=bytes(range(256))),
    "reference": Value(reference_value="projects/p/databases/other/documents/é/1"),
    "geo_point": Value(geo_point_value={"latitude": -90, "longitude": 180}),
    "array": array(integer(1), text("x"), mapping(a=array())),
    "array_empty": array(),
    "map": mapping(a=integer(1), b=mapping(c=Value(null_value=0))),
    "map_empty": mapping(),
    "vector": mapping(__type__=text("__vector__"), value=array(Value(double_value=1.5))),
    "odd.name `\\ é": integer(1),
}


def stored_bytes(fields: dict[str, Any]) -> bytes:
    body: bytes = Document(fields=fields).SerializeToString(deterministic=True)
    return body


def too_large() -> dict[str, Any]:
    return {"a": text("x" * (MIB // 2)), "b": text("x" * (MIB // 2))}


class TestRead:
    def test_answers_in_the_order_asked_for_with_none_where_there_is_no_document(
        self, database: Database
    ) -> None:
        put(database, "c/3", {"n": integer(3)})
        put(database, "c/1", {"n": integer(1)})
        found = database.read(["c/3", "c/2", "a/1", "c/1"], timeout=PATIENCE_S)
        assert [one.path for one in found] == ["c/3", "c/2", "a/1", "c/1"]
        assert [one.document is None for one in found] == [False, True, True, False]
        assert [one.update_time == 0 for one in found] == [False, True, True, False]

    def test_gives_full_names_and_the_databases_own_times(self, database: Database) -> None:
        created = put(database, "c/1", {"n": integer(1)})
        updated = put(database, "c/1", {"n": integer(2)})
        found = look(database, "c/1")
        assert found.document.name == database.prefix + "c/1"
        assert (micros(found.document.create_time), micros(found.document.update_time)) == (created, updated)
        assert found.update_time == updated

    def test_a_created_again_document_has_a_new_create_time(self, database: Database) -> None:
        put(database, "c/1", {"n": integer(1)})
        database.commit([remove(database, "c/1")], timeout=PATIENCE_S)
        again = put(database, "c/1", {"n": integer(1)})
        assert micros(look(database, "c/1").document.create_time) == again

    def test_read_time_is_between_the_commits_before_and_after(self, database: Database) -> None:
        before = put(database, "c/1", {"n": integer(1)})
        first, second = look(database, "c/1").read_time, look(database, "missing/1").read_time
        after = put(database, "c/1", {"n": integer(2)})
        assert before <= first <= second < after

    def test_nothing_asked_is_nothing_found(self, database: Database) -> None:
        assert database.read([], timeout=PATIENCE_S) == []

    @pytest.mark.parametrize("path", ["c", "c/1/d", "c//d/1", "c/.", "c/__x__", "__x__/1"])
    def test_a_path_that_cannot_be_a_documents_is_refused(self, database: Database, path: str) -> None:
        with pytest.raises(Refused):
            database.read([path], timeout=PATIENCE_S)

    def test_subcollections_and_any_script_are_paths(self, database: Database) -> None:
        put(database, "é ü/日本/__x/y__", {"n": integer(1)})
        assert look(database, "é ü/日本/__x/y__").document is not None
        assert look(database, "é ü/日本").document is None


class TestValues:
    @pytest.mark.parametrize("name", VALUES)
    def test_every_type_comes_back_byte_for_byte(self, database: Database, name: str) -> None:
        put(database, "c/1", {name: VALUES[name]})
        assert stored_bytes(fields_of(database, "c/1")) == stored_bytes({name: VALUES[name]})

    def test_all_types_in_one_document_come_back_byte_for_byte(self, database: Database) -> None:
        put(database, "c/1", VALUES)
        assert stored_bytes(fields_of(database, "c/1")) == stored_bytes(VALUES)

    def test_what_is_finer_than_a_microsecond_is_cut_off_at_any_depth(self, database: Database) -> None:
        fine, cut = (Value(timestamp_value={"seconds": -5, "nanos": n}) for n in (1_999, 1_000))
        put(database, "c/1", {"t": fine, "m": mapping(t=fine), "a": array(fine)})
        assert fields_of(database, "c/1") == {"t": cut, "m": mapping(t=cut), "a": array(cut)}

    def test_what_the_caller_does_to_its_messages_does_not_reach_the_store(self, database: Database) -> None:
        write = overwrite(database, "c/1", {"m": mapping(a=integer(1))})
        database.commit([write], timeout=PATIENCE_S)
        write.update.fields["m"].map_value.fields["a"].integer_value = 2
        look(database, "c/1").document.fields["m"].map_value.fields["a"].integer_value = 3
        assert fields_of(database, "c/1") == {"m": mapping(a=integer(1))}

    def test_a_write_leaves_the_callers_message_as_it_was(self, database: Database) -> None:
        write = overwrite(database, "c/1", {"t": Value(timestamp_value={"nanos": 1_999})})
        before = write.SerializeToString(deterministic=True)
        database.commit([write], timeout=PATIENCE_S)
        assert write.SerializeToString(deterministic=True) == before


class TestPreconditions:
    @pytest.mark.parametrize("make", [overwrite, remove])
    def test_on_a_document_that_exists(self, database: Database, make: Any) -> None:
        time = put(database, "c/1", {"n": integer(0)})
        assert codes(database, make(database, "c/1", exists=False)) == [ALREADY_EXISTS]
        assert codes(database, make(database, "c/1", update_time=time - 1)) == [FAILED_PRECONDITION]
        # A time that never was: no read gives it.
        assert codes(database, make(database, "c/1", update_time=time + 1)) == [INVALID_ARGUMENT]
        assert look(database, "c/1").update_time == time
        assert codes(database, make(database, "c/1", update_time=time)) == [OK]
        assert look(database, "c/1").update_time != time

    @pytest.mark.parametrize("make", [overwrite, remove])
    def test_on_a_document_that_does_not_exist(self, database: Database, make: Any) -> None:
        time = put(database, "c/other", {"n": integer(0)})
        assert codes(database, make(database, "c/1", exists=True)) == [NOT_FOUND]
        assert codes(database, make(database, "c/1", update_time=time)) == [FAILED_PRECONDITION]
        assert look(database, "c/1").document is None
        assert codes(database, make(database, "c/1", exists=False)) == [OK]

    @pytest.mark.parametrize("make", [overwrite, remove])
    def test_exists_true_holds_where_there_is_a_document(self, database: Database, make: Any) -> None:
        put(database, "c/1", {"n": integer(0)})
        assert codes(database, make(database, "c/1", exists=True)) == [OK]

    @pytest.mark.parametrize("condition", [{"exists": False}, {"update_time": 1}])
    def test_one_that_fails_in_a_commit_raises(self, database: Database, condition: dict[str, Any]) -> None:
        put(database, "c/1", {"n": integer(0)})
        with pytest.raises(ConditionFailed):
            database.commit([overwrite(database, "c/1", **condition)], timeout=PATIENCE_S)

    def test_one_on_a_missing_document_in_a_commit_raises(self, database: Database) -> None:
        for condition in ({"exists": True}, {"update_time": 1}):
            with pytest.raises(ConditionFailed):
                database.commit([remove(database, "c/1", **condition)], timeout=PATIENCE_S)

    def test_an_update_time_finer_than_a_microsecond_is_refused(self, database: Database) -> None:
        write = overwrite(database, "c/1")
        write.current_document.update_time.nanos = 1
        with pytest.raises(Refused):
            database.batch_write([write], timeout=PATIENCE_S)


class TestTimes:
    def test_commit_times_strictly_increase(self, database: Database) -> None:
        times = [put(database, f"c/{n % 3}", {"n": integer(n)}) for n in range(10)]
        assert times == sorted(set(times))

    def test_a_documents_commit_times_increase_over_its_deletion(self, database: Database) -> None:
        first = put(database, "c/1", {"n": integer(1)})
        deleted = database.commit([remove(database, "c/1")], timeout=PATIENCE_S)
        assert first < deleted < put(database, "c/1", {"n": integer(1)})

    def test_batch_write_reports_the_update_time_of_each(self, database: Database) -> None:
        [first, second] = database.batch_write(
            [overwrite(database, "c/1"), overwrite(database, "c/2")], timeout=PATIENCE_S
        )
        assert first.commit_time == look(database, "c/1").update_time
        assert second.commit_time == look(database, "c/2").update_time

    @pytest.mark.parametrize("again", [{"mask": None}, {"mask": ["n"]}, {"mask": []}])
    def test_a_write_that_changes_nothing_keeps_the_update_time(
        self, database: Database, again: dict[str, Any]
    ) -> None:
        fields = {"n": integer(1), "m": mapping(a=integer(1), b=integer(2))}
        time = put(database, "c/1", fields)
        same = overwrite(database, "c/1", fields, update_time=time, **again)
        [written] = database.batch_write([same], timeout=PATIENCE_S)
        assert (written.code, written.commit_time) == (OK, time)
        assert database.commit([same], timeout=PATIENCE_S) > time
        assert look(database, "c/1").update_time == time

    def test_equal_numbers_of_different_types_are_a_change(self, database: Database) -> None:
        time = put(database, "c/1", {"n": integer(1)})
        assert put(database, "c/1", {"n": Value(double_value=1)}) > time
        assert look(database, "c/1").update_time > time


class TestBatchWrite:
    def test_each_write_has_its_own_outcome(self, database: Database) -> None:
        time = put(database, "c/1", {"n": integer(0)})
        found = codes(
            database,
            overwrite(database, "c/1", exists=False),
            overwrite(database, "c/2", {"n": integer(2)}, exists=False),
            overwrite(database, "c/3", exists=True),
            remove(database, "c/4", update_time=time),
            remove(database, "c/5"),
        )
        assert found == [ALREADY_EXISTS, OK, NOT_FOUND, FAILED_PRECONDITION, OK]
        assert fields_of(database, "c/2") == {"n": integer(2)}

    def test_the_same_document_twice_refuses_everything(self, database: Database) -> None:
        twice = [overwrite(database, "c/1"), overwrite(database, "c/2"), remove(database, "c/1")]
        with pytest.raises(Refused):
            database.batch_write(twice, timeout=PATIENCE_S)
        assert look(database, "c/2").document is None

    def test_a_document_over_one_mebibyte_fails_alone(self, database: Database) -> None:
        found = codes(
            database,
            overwrite(database, "c/1"),
            overwrite(database, "c/2", too_large()),
            overwrite(database, "c/3"),
        )
        assert found == [OK, INVALID_ARGUMENT, OK]
        assert [one.document is None for one in database.read(["c/1", "c/2", "c/3"], timeout=PATIENCE_S)] == [
            False,
            True,
            False,
        ]

    def test_a_document_that_grows_over_one_mebibyte_by_an_update_fails(self, database: Database) -> None:
        large = too_large()
        put(database, "c/1", {"a": large["a"]})
        grown = overwrite(database, "c/1", {"b": large["b"]}, mask=["b"])
        assert codes(database, grown) == [INVALID_ARGUMENT]
        assert list(fields_of(database, "c/1")) == ["a"]

    def test_a_failed_precondition_is_reported_before_the_size(self, database: Database) -> None:
        assert codes(database, overwrite(database, "c/1", too_large(), exists=True)) == [NOT_FOUND]

    @pytest.mark.parametrize(
        ("value", "most"),
        [
            (Value(geo_point_value={}), 65_532),
            (Value(timestamp_value={}), 131_065),
            (mapping(a=integer(1)), 104_852),
            (Value(bytes_value=b"abc"), 349_507),
            (text("é"), 349_507),
            (Value(reference_value="projects/p/databases/d/documents/aaa/bbb"), 43_688),
        ],
        ids=["geo_point", "timestamp", "map", "bytes", "string", "reference"],
    )
    def test_size_is_measured_as_firestore_documents_it(
        self, database: Database, value: Any, most: int
    ) -> None:
        fits = overwrite(database, "s/3", {"x": array(*[value] * most)})
        exceeds = overwrite(database, "s/3", {"x": array(*[value] * (most + 1))})
        assert codes(database, exceeds) == [INVALID_ARGUMENT]
        assert codes(database, fits) == [OK]

    def test_a_request_over_ten_mebibytes_is_refused(self, database: Database) -> None:
        writes = [overwrite(database, f"c/{n}", {"x": text("x" * 1_000_000)}) for n in range(11)]
        with pytest.raises(Refused):
            database.batch_write(writes, timeout=PATIENCE_S)

    def test_nothing_to_write_is_nothing_written(self, database: Database) -> None:
        assert database.batch_write([], timeout=PATIENCE_S) == []

    @pytest.mark.parametrize(
        "fields",
        [
            {"__x__": integer(1)},
            {"": integer(1)},
            {"x" * 1_501: integer(1)},
            {"m": mapping(__x__=integer(1))},
            {"v": mapping(__type__=text("__vector__"), value=array(integer(1)))},
            {"unset": Value()},
            {"a": array(array(integer(1)))},
            {"deep": nested(21)},
            {"long": text("x" * (MIB - 88))},
            {"t": Value(timestamp_value={"seconds": 10**12})},
            {"t": Value(timestamp_value={"nanos": -1})},
            {"g": Value(geo_point_value={"latitude": 90.5})},
            {"r": Value(reference_value="orders/1")},
            {"r": Value(reference_value="projects/p/databases/d/documents/orders")},
        ],
        ids=lambda fields: next(iter(fields))[:10] or "empty",
    )
    def test_an_invalid_value_refuses_the_whole_request(
        self, database: Database, fields: dict[str, Any]
    ) -> None:
        for call in (database.batch_write, database.commit):
            with pytest.raises(Refused):
                call([overwrite(database, "c/1"), overwrite(database, "c/2", fields)], timeout=PATIENCE_S)
        assert look(database, "c/1").document is None

    @pytest.mark.parametrize("path", ["", "c", "c/1/d", "c//d/1", "c/1/", "c/..", "c/__x__", "__x__/1"])
    def test_an_invalid_path_refuses_the_whole_request(self, database: Database, path: str) -> None:
        for make in (overwrite, remove):
            with pytest.raises(Refused):
                database.batch_write([overwrite(database, "c/1"), make(database, path)], timeout=PATIENCE_S)
        assert look(database, "c/1").document is None

    def test_what_is_neither_update_nor_delete_is_refused(self, database: Database) -> None:
        with pytest.raises(Refused):
            database.batch_write([Write()], timeout=PATIENCE_S)

    def test_a_delete_with_a_mask_is_refused(self, database: Database) -> None:
        write = remove(database, "c/1")
        write.update_mask.field_paths.append("a")
        with pytest.raises(Refused):
            database.batch_write([write], timeout=PATIENCE_S)

    def test_values_nested_as_deep_as_allowed_are_stored(self, database: Database) -> None:
        put(database, "c/1", {"deep": nested(20)})
        assert fields_of(database, "c/1") == {"deep": nested(20)}


ONE, TWO, FIVE = integer(1), integer(2), integer(5)


class TestMasks:
    @pytest.mark.parametrize(
        ("before", "new", "mask", "after"),
        [
            ({"a": ONE, "b": TWO}, {"a": FIVE, "b": FIVE}, ["a"], {"a": FIVE, "b": TWO}),
            ({"a": ONE, "b": TWO}, {}, ["a"], {"b": TWO}),
            ({"a": ONE}, {"b": TWO}, ["a", "b"], {"b": TWO}),
            ({"a": ONE}, {"b": TWO}, [], {"a": ONE}),
            (
                {"m": mapping(x=ONE, y=TWO)},
                {"m": mapping(x=FIVE, z=FIVE)},
                ["m.x"],
                {"m": mapping(x=FIVE, y=TWO)},
            ),
            ({"m": mapping(x=ONE, y=TWO)}, {}, ["m.x"], {"m": mapping(y=TWO)}),
            ({"m": mapping(x=ONE)}, {}, ["m.x"], {"m": mapping()}),
            ({"m": mapping(x=ONE)}, {"m": FIVE}, ["m.x"], {"m": mapping()}),
            ({"m": mapping(x=ONE)}, {"m": mapping(y=TWO)}, ["m"], {"m": mapping(y=TWO)}),
            ({"b": ONE}, {}, ["m.x.y"], {"b": ONE}),
            (
                {"b": ONE},
                {"m": mapping(x=mapping(y=TWO))},
                ["m.x.y"],
                {"b": ONE, "m": mapping(x=mapping(y=TWO))},
            ),
            ({"a": ONE}, {}, ["a.x"], {"a": ONE}),
            ({"a": ONE}, {"a": mapping(x=TWO)}, ["a.x"], {"a": mapping(x=TWO)}),
            ({"a": array(ONE)}, {"a": mapping(x=TWO)}, ["a.x"], {"a": mapping(x=TWO)}),
            ({"a": ONE}, {"a.b": TWO, "a": FIVE}, ["`a.b`"], {"a": ONE, "a.b": TWO}),
            ({}, {"c`d\\e é": TWO}, ["`c\\`d\\\\e é`"], {"c`d\\e é": TWO}),
            ({"a.b": mapping(**{"c d": ONE})}, {}, ["`a.b`.`c d`"], {"a.b": mapping()}),
            ({"a": ONE}, {"a": TWO}, ["`a`", "a"], {"a": TWO}),
            (None, {"a": ONE, "b": TWO}, ["a"], {"a": ONE}),
            (None, {}, ["a"], {}),
            (None, {"a": ONE}, [], {}),
        ],
    )
    def test_a_mask_changes_what_it_names_and_nothing_else(
        self,
        database: Database,
        before: dict[str, Any] | None,
        new: dict[str, Any],
        mask: list[str],
        after: dict[str, Any],
    ) -> None:
        if before is not None:
            put(database, "c/1", before)
        assert codes(database, overwrite(database, "c/1", new, mask=mask)) == [OK]
        assert fields_of(database, "c/1") == after

    @pytest.mark.parametrize(
        "path", ["", "a..b", ".a", "a.", "1a", "a-b", "é", "`a", "``", "__x__", "m.`__x__`"]
    )
    def test_what_is_no_field_path_is_refused(self, database: Database, path: str) -> None:
        with pytest.raises(Refused):
            database.batch_write([overwrite(database, "c/1", mask=[path])], timeout=PATIENCE_S)


class TestCommit:
    def test_all_documents_get_the_one_commit_time(self, database: Database) -> None:
        put(database, "c/2", {"n": integer(1)})
        time = database.commit(
            [overwrite(database, "c/1"), overwrite(database, "c/2"), overwrite(database, "d/1")],
            timeout=PATIENCE_S,
        )
        found = database.read(["c/1", "c/2", "d/1"], timeout=PATIENCE_S)
        assert [one.update_time for one in found] == [time] * 3

    def test_one_failed_condition_leaves_everything_as_it_was(self, database: Database) -> None:
        time = put(database, "c/2", {"n": integer(1)})
        writes = [
            overwrite(database, "c/1"),
            overwrite(database, "c/2", {"n": integer(2)}),
            remove(database, "c/3", exists=True),
        ]
        with pytest.raises(ConditionFailed):
            database.commit(writes, timeout=PATIENCE_S)
        assert look(database, "c/1").document is None
        assert look(database, "c/2").update_time == time

    def test_one_oversize_document_refuses_everything(self, database: Database) -> None:
        with pytest.raises(Refused):
            database.commit(
                [overwrite(database, "c/1"), overwrite(database, "c/2", too_large())], timeout=PATIENCE_S
            )
        assert look(database, "c/1").document is None

    def test_writes_of_the_same_document_apply_in_order(self, database: Database) -> None:
        writes = [
            overwrite(database, "c/1", {"a": ONE}, exists=False),
            overwrite(database, "c/1", {"b": TWO}, mask=["b"], exists=True),
            overwrite(database, "c/2", {"a": ONE}),
            remove(database, "c/2", exists=True),
        ]
        time = database.commit(writes, timeout=PATIENCE_S)
        assert fields_of(database, "c/1") == {"a": ONE, "b": TWO}
        assert look(database, "c/1").update_time == time
        assert look(database, "c/2").document is None


class TestCreateGuard:
    """A create lands only while its tombstone is what was read: absent, or of one known `update_time`."""

    TOMBSTONE = "_repl_tombstones/ab"

    def create(self, database: Database, guard: Any) -> int:
        return database.commit(
            [overwrite(database, "c/1", {"n": ONE}, exists=False), guard], timeout=PATIENCE_S
        )

    def test_an_absent_tombstone_lets_it_land_and_stays_absent(self, database: Database) -> None:
        time = self.create(database, remove(database, self.TOMBSTONE, exists=False))
        assert look(database, "c/1").update_time == time
        assert look(database, self.TOMBSTONE).document is None

    def test_a_tombstone_that_appeared_stops_it(self, database: Database) -> None:
        put(database, self.TOMBSTONE, {"path": text("c/1")})
        with pytest.raises(ConditionFailed):
            self.create(database, remove(database, self.TOMBSTONE, exists=False))
        assert look(database, "c/1").document is None
        assert look(database, self.TOMBSTONE).document is not None

    def test_a_tombstone_as_it_was_read_lets_it_land_and_is_not_touched(self, database: Database) -> None:
        read = put(database, self.TOMBSTONE, {"path": text("c/1")})
        self.create(database, overwrite(database, self.TOMBSTONE, mask=[], update_time=read))
        assert look(database, "c/1").document is not None
        tombstone = look(database, self.TOMBSTONE)
        assert (dict(tombstone.document.fields), tombstone.update_time) == ({"path": text("c/1")}, read)

    @pytest.mark.parametrize("change", ["replaced", "removed"])
    def test_a_tombstone_that_changed_stops_it(self, database: Database, change: str) -> None:
        read = put(database, self.TOMBSTONE, {"path": text("c/1")})
        if change == "replaced":
            put(database, self.TOMBSTONE, {"path": text("c/1"), "n": ONE})
        else:
            database.commit([remove(database, self.TOMBSTONE)], timeout=PATIENCE_S)
        with pytest.raises(ConditionFailed):
            self.create(database, overwrite(database, self.TOMBSTONE, mask=[], update_time=read))
        assert look(database, "c/1").document is None

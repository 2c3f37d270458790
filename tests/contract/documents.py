"""Building the writes and values that the contract tests send."""

from collections.abc import Mapping, Sequence
from typing import Any

from replication.documents.wire import Document, Value, Write, set_micros
from replication.ports import Database, Found
from tests.support.polling import PATIENCE_S

Fields = Mapping[str, Any]


def integer(value: int) -> Any:
    return Value(integer_value=value)


def text(value: str) -> Any:
    return Value(string_value=value)


def mapping(**fields: Any) -> Any:
    value = Value()
    value.map_value.SetInParent()
    for name, field in fields.items():
        value.map_value.fields[name].CopyFrom(field)
    return value


def array(*values: Any) -> Any:
    return Value(array_value={"values": values})


def nested(depth: int) -> Any:
    """A number inside `depth` maps."""
    value = integer(1)
    for _ in range(depth):
        value = mapping(in_=value)
    return value


def overwrite(
    database: Database,
    path: str,
    fields: Fields | None = None,
    *,
    mask: Sequence[str] | None = None,
    exists: bool | None = None,
    update_time: int | None = None,
) -> Any:
    """A write of a document: of the whole, or of what `mask` names (an empty mask names nothing)."""
    write = Write(update=Document(name=database.prefix + path, fields=fields))
    if mask is not None:
        write.update_mask.SetInParent()
        write.update_mask.field_paths.extend(mask)
    return _conditional(write, exists, update_time)


def remove(database: Database, path: str, *, exists: bool | None = None, update_time: int | None = None) -> Any:
    return _conditional(Write(delete=database.prefix + path), exists, update_time)


def _conditional(write: Any, exists: bool | None, update_time: int | None) -> Any:
    if exists is not None:
        write.current_document.exists = exists
    if update_time is not None:
        set_micros(write.current_document.update_time, update_time)
    return write


def put(database: Database, path: str, fields: Fields | None = None) -> int:
    """Write a whole document unconditionally; returns the commit time."""
    return database.commit([overwrite(database, path, fields)], timeout=PATIENCE_S)


def look(database: Database, path: str) -> Found:
    [found] = database.read([path], timeout=PATIENCE_S)
    return found


def fields_of(database: Database, path: str) -> dict[str, Any]:
    return dict(look(database, path).document.fields)


def codes(database: Database, *writes: Any) -> list[int]:
    return [written.code for written in database.batch_write(writes, timeout=PATIENCE_S)]

"""Events: what Eventarc delivers to capture, read but not judged.

The data is Eventarc's `DocumentEventData`. A message carries the same bytes on, so `decode` reads them with the
functions here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from replication.changes.envelope import CONTENT_TYPE, ID, JSON, TIME, TYPE, TYPE_PREFIX, received_attributes
from replication.documents.wire import MICROS, DocumentEventData, is_document_path, micros, split_name
from replication.errors import EventError, Reason


class Sides(NamedTuple):
    """A document after and before one change, as protobuf; None if it did not exist."""

    value: Any
    old: Any


@dataclass(slots=True)
class Event:
    """One change as Eventarc reported it.

    `body` is the bytes it came as; `attributes` are the CloudEvent's, named `ce-…`. `deleted`: the document is
    gone after this change. `old` is the document before it, None where there was none, `replaced` its update
    time in microseconds, or 0. The document after it is handed out by `take_value`.

    `unchanged`: nothing happened. Production sends no such event, the emulator does: for a write that changed
    nothing (a guard with an empty mask), and for a delete of what did not exist (a guard on an absent
    tombstone), which names no document.
    """

    body: bytes
    attributes: Mapping[str, str]
    project: str
    database: str
    path: str
    deleted: bool
    unchanged: bool
    old: Any
    replaced: int
    _value: Any = field(repr=False)

    @property
    def by_system(self) -> bool:
        """Whether Firestore itself made the change: its TTL policy deletes as `system`."""
        return self.attributes.get("ce-authtype") == "system"

    def take_value(self) -> Any:
        """The document after the change, once: whoever takes it may dismantle it.

        `AssertionError` if there is none (the change is a delete), or if it was taken before.
        """
        value, self._value = self._value, None
        if value is None:
            raise AssertionError(f"the document of {self.path!r} was deleted, or was taken before")
        return value


def parse_event(body: bytes, headers: Mapping[str, str]) -> Event:
    """Read one of Eventarc's Firestore events. Raises `EventError` if it is not one.

    `headers` are the CloudEvent's attributes by their lower-case names (`ce-id`, …) and `content-type`.
    """
    for name in (ID, TYPE, TIME):
        if not headers.get(name):
            raise EventError(
                Reason.MISSING_ATTRIBUTE, f"no {name} header: send Eventarc's events in binary content mode"
            )
    if not headers[TYPE].startswith(TYPE_PREFIX):
        raise EventError(
            Reason.UNKNOWN_KIND,
            f"event type {headers[TYPE]!r} is not one of Firestore's: point only triggers of "
            f"{TYPE_PREFIX}written here",
        )
    attributes = received_attributes(headers)
    value, old = parse_data(body, attributes)
    document = old if value is None else value
    # An event that names no document is always `unchanged`.
    project, database, path = ("", "", "") if document is None else parse_name(document.name)
    parse_time(headers[TIME])  # a worker dates a delete by it
    before = None if old is None else micros(old.update_time)
    after = None if value is None else micros(value.update_time)
    return Event(
        body=body,
        attributes=attributes,
        project=project,
        database=database,
        path=path,
        deleted=value is None,
        unchanged=before == after,
        old=old,
        replaced=before or 0,
        _value=value,
    )


def parse_data(body: bytes, attributes: Mapping[str, str]) -> Sides:
    """Read a `DocumentEventData`, as protobuf or, if its attributes say so, as JSON. Raises `EventError`."""
    try:
        if attributes.get(CONTENT_TYPE) == JSON:
            data = json_format.Parse(body, DocumentEventData())
        else:
            data = DocumentEventData.FromString(body)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(
            Reason.UNDECODABLE,
            f"the data ({len(body)} bytes) is not a DocumentEventData: {str(error)[:200]}",
        ) from error
    return Sides(
        data.value if data.HasField("value") else None,
        data.old_value if data.HasField("old_value") else None,
    )


def parse_name(name: str) -> tuple[str, str, str]:
    """(project, database, relative path) of a document's full name. Raises `EventError`."""
    parts = split_name(name)
    if parts is None or not is_document_path(parts[2]):
        raise EventError(Reason.NOT_A_DOCUMENT, f"{name[:300]!r} is not a document's name")
    return parts


def parse_time(text: str) -> int:
    """An RFC 3339 time as microseconds since 1970; finer parts are cut off. Raises `EventError`."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("it has no time zone")
        seconds = moment.timestamp() // 1
    except (ValueError, OverflowError) as error:
        raise EventError(Reason.UNDECODABLE, f"time {text[:60]!r} is not RFC 3339: {error}") from error
    # Not `timestamp() * 10**6`: a float has no room for today's microseconds.
    return int(seconds) * MICROS + moment.microsecond

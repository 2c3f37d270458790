"""The envelope of a change: an event's and a message's attributes, all of them built here.

An event comes as a CloudEvent over HTTP, and goes on as one over Pub/Sub (both bindings in binary mode: the
attributes are `ce-…` headers, then message attributes). A message also has this system's own: `replica`,
`kind`, `heal`, `to`. The table is under "Wire format" in ARCHITECTURE.md.
"""

from collections.abc import Mapping
from enum import StrEnum

from replication.limits import ATTRIBUTE_BYTES_MAX

TYPE_PREFIX = "google.cloud.firestore.document.v1."
WRITTEN = f"{TYPE_PREFIX}written"
"""The type of an event that reports any change: created, updated or deleted."""
JSON, PROTOBUF = "application/json", "application/protobuf"
ID, TYPE, SOURCE, TIME = "ce-id", "ce-type", "ce-source", "ce-time"
CONTENT_TYPE = "ce-datacontenttype"
DOCUMENT = "ce-document"
TRACE = "traceparent"


class Kind(StrEnum):
    """What a message is to its receivers."""

    WRITE = "write"
    DELETE = "delete"
    MERGED = "merged"
    VIOLATION = "violation"


KINDS: Mapping[str, Kind] = {kind.value: kind for kind in Kind}


def cloud_event(*, project: str, database: str, event_id: str, time: str) -> dict[str, str]:
    """The attributes that every event of a database has. `time` is an RFC 3339 time, the event's."""
    return {
        "ce-specversion": "1.0",
        ID: event_id,
        TYPE: WRITTEN,
        SOURCE: f"//firestore.googleapis.com/projects/{project}/databases/{database}",
        TIME: time,
    }


def eventarc_headers(
    path: str, *, project: str, database: str, location: str, event_id: str, time: str
) -> dict[str, str]:
    """The headers with which Eventarc reports a change of the document at `path`, its data as protobuf."""
    return {
        **cloud_event(project=project, database=database, event_id=event_id, time=time),
        "content-type": PROTOBUF,
        "ce-subject": f"documents/{path}",
        DOCUMENT: path,
        "ce-project": project,
        "ce-database": database,
        "ce-location": location,
        "ce-namespace": "(default)",
    }


def received_attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """An event's attributes, of the headers of its request. They always have a content type."""
    attributes = {name: value for name, value in headers.items() if name.startswith("ce-")}
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if trace := headers.get(TRACE):
        attributes[TRACE] = trace
    attributes[CONTENT_TYPE] = content_type or attributes.get(CONTENT_TYPE, PROTOBUF)
    return attributes


def message_attributes(
    event: Mapping[str, str], *, replica: str, kind: Kind, heal: bool = False, to: str | None = None
) -> dict[str, str]:
    """A message's attributes: the event's, except those that Pub/Sub would refuse, and this system's own.

    `heal`: the replica itself receives it too. `to`: only that replica receives it.
    """
    attributes = {name: text for name, text in event.items() if len(text.encode()) <= ATTRIBUTE_BYTES_MAX}
    attributes |= {"replica": replica, "kind": kind}
    if heal:
        attributes["heal"] = "1"
    if to is not None:
        attributes["to"] = to
    return attributes

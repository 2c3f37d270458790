"""The protobuf messages that pass through, and the names and times in them.

Eventarc's `Document` and `Value` have the field numbers of `google.firestore.v1`, so an event is parsed
straight into Firestore's own classes: a document's fields go from the event into a write without being
converted (https://github.com/googleapis/google-cloudevents, `proto/google/events/cloud/firestore/v1`). The
classes are plain protobuf, not proto-plus: ten times less work per field.
"""

from datetime import UTC, datetime
from typing import Any

from google.cloud.firestore_v1.types import common, document, firestore, write
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# `Type.pb()` is proto-plus' documented way to the plain class; the classes are made at run time, so they
# have no static type.
Document: Any = document.Document.pb()
Value: Any = document.Value.pb()
MapValue: Any = document.MapValue.pb()
Write: Any = write.Write.pb()
Precondition: Any = common.Precondition.pb()
BatchGetDocumentsRequest: Any = firestore.BatchGetDocumentsRequest.pb()
BatchGetDocumentsResponse: Any = firestore.BatchGetDocumentsResponse.pb()
BatchWriteRequest: Any = firestore.BatchWriteRequest.pb()
BatchWriteResponse: Any = firestore.BatchWriteResponse.pb()
CommitRequest: Any = firestore.CommitRequest.pb()
CommitResponse: Any = firestore.CommitResponse.pb()

MICROS = 1_000_000


def _event_class() -> Any:
    """`google.events.cloud.firestore.v1.DocumentEventData`, holding Firestore's own Document."""
    described = descriptor_pb2.FileDescriptorProto(
        name="firefleet/event.proto",
        package="firefleet",
        syntax="proto3",
        dependency=[
            Document.DESCRIPTOR.file.name,
            common.DocumentMask.pb().DESCRIPTOR.file.name,
        ],
    )
    message = described.message_type.add(name="DocumentEventData")
    field = descriptor_pb2.FieldDescriptorProto
    for number, (name, kind) in enumerate(
        (("value", "Document"), ("old_value", "Document"), ("update_mask", "DocumentMask")), start=1
    ):
        message.field.add(
            name=name,
            number=number,
            type=field.TYPE_MESSAGE,
            label=field.LABEL_OPTIONAL,
            type_name=f".google.firestore.v1.{kind}",
        )
    pool = descriptor_pool.Default()
    pool.Add(described)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("firefleet.DocumentEventData"))


DocumentEventData: Any = _event_class()


def micros(timestamp: Any) -> int:
    """A protobuf timestamp as microseconds since 1970; finer parts are cut off, as Firestore does."""
    seconds: int = timestamp.seconds
    nanos: int = timestamp.nanos
    return seconds * MICROS + nanos // 1000


def set_micros(timestamp: Any, value: int) -> None:
    """Write microseconds since 1970 into a protobuf timestamp."""
    timestamp.seconds, rest = divmod(value, MICROS)
    timestamp.nanos = rest * 1000


def time_text(value: int) -> str:
    """Microseconds since 1970 as RFC 3339."""
    seconds, rest = divmod(value, MICROS)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    return moment.isoformat().replace("+00:00", "Z")


def database_prefix(project: str, database: str) -> str:
    """What every document name of one database begins with, up to and including the last slash."""
    return f"projects/{project}/databases/{database}/documents/"


def split_name(name: str) -> tuple[str, str, str] | None:
    """(project, database, relative path) of a document's full name; None if it is no such name."""
    parts = name.split("/", 5)
    if len(parts) < 6 or (parts[0], parts[2], parts[4]) != ("projects", "databases", "documents"):
        return None
    return parts[1], parts[3], parts[5]


def is_document_path(path: str) -> bool:
    """Whether a relative path names a document: an even number of segments, none of them empty."""
    # An even number of segments has an odd number of slashes between them.
    return path.count("/") % 2 == 1 and "//" not in path and path[0] != "/" and path[-1] != "/"


def collection_id(path: str) -> str:
    """The id of the collection a document is in: `items` of `carts/7/items/2`."""
    return path.rsplit("/", 2)[-2]

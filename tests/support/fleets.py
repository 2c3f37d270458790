"""Fleets and events for the tests of the core."""

from typing import Any

from replication.configuration.parse import parse_fleet
from replication.documents.metadata import Meta, MetadataCodec
from replication.documents.wire import Document, DocumentEventData, Value, set_micros, time_text
from replication.fleet.model import Fleet
from replication.ports import Message

TEXT = """
project: shop
topic: changes
replicas:
  eu:   {database: eu,   location: europe-west1}
  us:   {database: us,   location: us-central1}
  apac: {database: apac, location: asia-south1}
collections:
  - {match: "secrets/{document=**}", mode: local}
  - {match: "wallets/{id}", mode: single-primary, primary: eu}
  - match: "orders/{id}"
    mode: multi-primary
    conflict: {policy: precedence, field: status, order: [pending, approved]}
  - match: "counters/{id}"
    mode: multi-primary
    conflict: {policy: field-rules, fields: {count: max}}
  - {match: "{document=**}", mode: multi-primary}
"""
CODEC = MetadataCodec()
NOW = 1_700_000_000_000_000
"""µs"""


def fleet(text: str = TEXT) -> Fleet:
    return parse_fleet(text, file="fleet.yaml", read_secret=lambda _: b"")


def text(value: str) -> Any:
    return Value(string_value=value)


def document(
    replica: str,
    path: str,
    fields: dict[str, Any],
    *,
    update_time: int,
    meta: Meta | None = None,
    sealed_for: str | None = None,
) -> Any:
    """A document as `replica` holds it, with `meta` sealed for its path (or another's)."""
    made = Document(name=f"projects/shop/databases/{replica}/documents/{path}")
    for name, value in fields.items():
        made.fields[name].CopyFrom(value)
    if meta is not None:
        CODEC.encode(sealed_for or path, meta, made.fields["_repl"])
    set_micros(made.update_time, update_time)
    set_micros(made.create_time, update_time)
    return made


def data(value: Any = None, old: Any = None) -> bytes:
    made = DocumentEventData()
    if value is not None:
        made.value.CopyFrom(value)
    if old is not None:
        made.old_value.CopyFrom(old)
    return bytes(made.SerializeToString())


def request(
    value: Any = None, old: Any = None, *, time: int = NOW, **headers: str
) -> tuple[bytes, dict[str, str]]:
    """Eventarc's request for a change from `old` to `value`: its body and headers, some of them replaced."""
    named = {
        "ce-id": "1",
        "ce-type": "google.cloud.firestore.document.v1.written",
        "ce-time": time_text(time),
        "content-type": "application/protobuf",
    }
    return data(value, old), named | {name.replace("_", "-"): text for name, text in headers.items()}


def message(
    kind: str, replica: str, value: Any = None, old: Any = None, *, time: int = NOW, **attributes: str
) -> Message:
    """What a worker gets."""
    named = {"kind": kind, "replica": replica, "ce-time": time_text(time)}
    return Message(data(value, old), named | attributes)

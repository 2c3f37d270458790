"""References that point into a replica's own database, in one neutral form and in each replica's own.

The same content must have the same digest at every replica, and a reference must lead to the reader's own
copy. So a body is kept with references into its own database written as `~/orders/1`, and gets the target's
prefix when it is written. References into any other database are left alone.
"""

from typing import Any

from replication.documents.wire import Document

NEUTRAL = "~/"
"""Begins a neutral reference; Firestore accepts no reference that does not begin with `projects/`."""
NEUTRAL_MARK = NEUTRAL[:1].encode()
"""A body without this byte holds no neutral reference."""


def may_refer(body: bytes) -> bool:
    """Whether a serialised Document may hold a reference: its bytes show it, and nearly none does."""
    return b"/databases/" in body


def rewrite_references(body: bytes, *, source: str, target: str) -> bytes:
    """`body` (a serialised Document) with references from below `source` pointing below `target`."""
    # Nearly no document holds a reference into its own database, and looking for the prefix in the bytes is
    # a hundred times cheaper than walking the values.
    if source.encode() not in body:
        return body
    document = Document.FromString(body)
    for value in document.fields.values():
        _rewrite(value, source, target)
    return bytes(document.SerializeToString(deterministic=True))


def _rewrite(value: Any, source: str, target: str) -> None:
    match value.WhichOneof("value_type"):
        case "reference_value":
            if value.reference_value.startswith(source):
                value.reference_value = target + value.reference_value[len(source) :]
        case "map_value":
            for inner in value.map_value.fields.values():
                _rewrite(inner, source, target)
        case "array_value":
            for inner in value.array_value.values:
                _rewrite(inner, source, target)
        case _:
            pass

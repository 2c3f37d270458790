"""Coverage-guided fuzzing of everything that takes bytes from outside: `make fuzz`.

Each input's first byte chooses where its rest goes: an event's HTTP body, a message of the topic, a `_repl`
field, a tombstone, the configuration. Whatever comes, the answer is a value or an error of this project's own
tree; anything else is a finding, which libFuzzer saves as `crash-…` beside where it was started.
"""

import base64
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["conflict", "replication", "workers"]):
    from replication.changes.body import protobuf_body
    from replication.changes.capture import ReadTombstone, capture, run_capture
    from replication.changes.decode import decode
    from replication.configuration.parse import parse_fleet
    from replication.documents.metadata import Meta, MetadataFault
    from replication.documents.stored import read_tombstone, tombstone_write
    from replication.documents.wire import Document, DocumentEventData, Value
    from replication.errors import ConfigError, EventError
    from replication.ports import Found, Message

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from conflict.version import Version
from tests.support.fleets import CODEC, NOW, TEXT, data, document, fleet, text

FLEET = fleet()
HEADERS = {
    "ce-id": "1",
    "ce-type": "google.cloud.firestore.document.v1.written",
    "ce-time": "2026-01-01T00:00:00Z",
    "content-type": "application/protobuf",
}
KINDS = ("write", "delete", "merged", "violation")


def request(given: bytes) -> None:
    """An HTTP request's body, as capture reads it."""
    with suppress(EventError, ValueError):
        body = protobuf_body(given)
        for content_type in ("application/protobuf", "application/json"):
            run_capture(capture(body, HEADERS | {"content-type": content_type}, FLEET), _no_tombstone)


def _no_tombstone(wanted: ReadTombstone) -> Found:
    return Found(wanted.path, None, 0, 0)


def topic(given: bytes) -> None:
    """A message's data, as a worker reads it."""
    for kind in KINDS:
        for content_type in ("application/protobuf", "application/json"):
            attributes = {"replica": "eu", "kind": kind, "ce-time": HEADERS["ce-time"]}
            with suppress(EventError):
                decode(Message(given, attributes | {"ce-datacontenttype": content_type}), FLEET)


def metadata(given: bytes) -> None:
    """A `_repl` field, as it may stand in any document."""
    with suppress(DecodeError, MetadataFault):
        CODEC.decode("orders/1", Value.FromString(given), update_time=0)


def tombstone(given: bytes) -> None:
    """A document in the collection of tombstones."""
    with suppress(DecodeError):
        read_tombstone(Document.FromString(given), path="orders/1", codec=CODEC)


def config(given: bytes) -> None:
    """The configuration's text."""
    with suppress(ConfigError):
        parse_fleet(given.decode(errors="replace"), file="fleet.yaml", read_secret=lambda _: b"")


TARGETS: Sequence[Callable[[bytes], None]] = (request, topic, metadata, tombstone, config)


def one_input(given: bytes) -> None:
    """What libFuzzer calls."""
    if given:
        TARGETS[given[0] % len(TARGETS)](given[1:])


def examples() -> Iterator[tuple[Callable[[bytes], None], bytes]]:
    """Valid inputs, from which libFuzzer makes others: it would hardly come upon a protobuf by itself."""
    version = Version({"eu": NOW - 9}, NOW - 9, "eu", NOW - 9, b"\x01" * 17)
    fields = {"x": text("1"), "n": Value(integer_value=-1)}
    new = document("eu", "orders/1", fields, update_time=NOW, meta=Meta(version, base=NOW - 8, read=NOW))
    old = document("eu", "orders/1", {}, update_time=NOW - 8, meta=Meta(version, read=NOW))
    for body in (data(new), data(new, old), data(None, old)):
        yield request, body
        yield request, base64.b64encode(body)
        yield topic, body
    yield topic, json_format.MessageToJson(DocumentEventData.FromString(data(new, old))).encode()
    yield metadata, new.fields["_repl"].SerializeToString()
    write = tombstone_write(
        "orders/1",
        Meta(version),
        [1, 2],
        expire_at=NOW,
        prefix="projects/shop/databases/eu/documents/",
        codec=CODEC,
    )
    yield tombstone, write.update.SerializeToString()
    yield config, TEXT.encode()


def main() -> None:
    """Fuzz until libFuzzer's own limits; its options are on the command line."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, (target, example) in enumerate(examples()):
            Path(corpus, str(number)).write_bytes(bytes([TARGETS.index(target)]) + example)
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

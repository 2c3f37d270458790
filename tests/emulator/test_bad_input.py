"""Bad input: each kind ends in the dead-letter topic with its reason, and everything around it is applied."""

import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from replication.adapters.pubsub import open_publisher
from replication.documents.wire import Document, DocumentEventData, set_micros, time_text
from replication.ports import Message, Received
from tests.emulator.metrics import Collector
from tests.emulator.replicas import Replicas
from tests.support.polling import PATIENCE_S, eventually
from workers.local.fleet import LocalFleet

NOW = 1_790_000_000_000_000
"""µs; before these tests run, so that no time is ahead of a document."""


def event(fleet: LocalFleet, path: str, text: str = "x", *, database: str = "app-eu") -> bytes:
    made = Document(name=f"projects/{fleet.fleet.project}/databases/{database}/documents/{path}")
    made.fields["x"].string_value = text
    set_micros(made.update_time, NOW)
    return bytes(DocumentEventData(value=made).SerializeToString())


def attributes(**own: str) -> dict[str, str]:
    return {"replica": "eu", "kind": "write", "ce-time": time_text(NOW), "mine": "kept"} | own


def undecodable(_fleet: LocalFleet) -> Message:
    return Message(b"\xff\xfe not an event", attributes())


def unknown_replica(fleet: LocalFleet) -> Message:
    return Message(event(fleet, "bad/1"), attributes(replica="mars"))


def without_attributes(fleet: LocalFleet) -> Message:
    return Message(event(fleet, "bad/2"), {"mine": "kept"})


def not_a_document(fleet: LocalFleet) -> Message:
    return Message(event(fleet, "bad/3/only-a-collection"), attributes())


def too_large(fleet: LocalFleet) -> Message:
    """It fits where it was written; with the metadata it would be over 1 MiB."""
    return Message(event(fleet, "bad/large", "x" * 1_048_400), attributes())


def of_another_database(fleet: LocalFleet) -> Message:
    return Message(event(fleet, "bad/4", database="not-in-the-config"), attributes())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (undecodable, "undecodable"),
        (unknown_replica, "unknown_replica"),
        (without_attributes, "missing_attribute"),
        (not_a_document, "not_a_document"),
        (too_large, "too_large"),
        (of_another_database, "foreign_database"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_cannot_be_applied_is_kept_with_its_reason_and_holds_up_nobody(
    fleet: LocalFleet,
    replicas: Replicas,
    metrics: Collector,
    make: Callable[[LocalFleet], Message],
    reason: str,
) -> None:
    bad, name = make(fleet), make.__name__
    counted = metrics.total("firefleet.dead_letters", reason=reason)
    known = {one.message.attributes["id"] for one in fleet.dead_letters()}
    publish(
        fleet,
        [Message(event(fleet, f"around/{name}-{number}"), attributes()) for number in range(5)]
        + [bad]
        + [Message(event(fleet, f"around/{name}-{number}"), attributes()) for number in range(5, 10)],
    )

    def letters() -> list[Received]:
        found = fleet.dead_letters()
        return [one for one in found if one.message.attributes["id"] not in known]

    targets = {"us", "apac"} | ({"eu"} if make in (without_attributes, unknown_replica) else set())
    eventually(lambda: {one.message.attributes["target"] for one in letters()} >= targets, every=0.5)
    for one in letters():
        assert one.message.data == bad.data
        assert one.message.attributes["mine"] == "kept"
        assert one.message.attributes["reason"] == reason
        assert len(one.message.attributes["error"]) > 10
        assert one.message.attributes.get("path") == ("bad/large" if make is too_large else None)

    def has_neighbours(replica: str) -> bool:
        return len(replicas.contents(below=f"around/{name}-")[replica]) == 10

    for replica in ("us", "apac"):
        eventually(partial(has_neighbours, replica), every=0.5)
    assert eventually(lambda: metrics.total("firefleet.dead_letters", reason=reason) > counted)


def publish(fleet: LocalFleet, messages: list[Message]) -> None:
    opened = open_publisher(fleet.fleet.project, fleet.fleet.topic, emulator_host=fleet.pubsub.host)
    with closing(opened) as publisher:
        for sent in [publisher.submit(message) for message in messages]:
            sent.result(PATIENCE_S)


HEADERS = {
    "ce-id": "1",
    "ce-source": "//firestore.googleapis.com/projects/p/databases/d",
    "ce-specversion": "1.0",
    "ce-type": "google.cloud.firestore.document.v1.written",
    "ce-time": time_text(NOW),
    "content-type": "application/protobuf",
}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"content-type": "application/json"}, 400),
        (b"\x0a\xff broken", HEADERS, 400),
        (b"not base64 either!", HEADERS, 400),
        (b"\x0a" + b"x" * (3 << 20), HEADERS, 413),
    ],
    ids=["no event", "broken protobuf", "no encoding", "too large"],
)
def test_capture_refuses_what_is_no_event(
    fleet: LocalFleet, body: bytes, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(fleet.capture.url, body, headers), timeout=PATIENCE_S)
    assert refused.value.code == status
    with refused.value as answer:
        assert len(answer.read()) > 20, "it says what is wrong"


def run(fleet: LocalFleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        fleet.command(*arguments), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_a_replica_that_is_not_in_the_config_is_a_usage_error(fleet: LocalFleet) -> None:
    done = run(fleet, "replicate", "--replica", "mars")
    assert done.returncode == 2
    assert "mars" in done.stderr
    assert "eu, us, apac" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_in_the_config_names_its_line_and_key(fleet: LocalFleet, tmp_path: Path) -> None:
    broken = tmp_path / "fleet.yaml"
    broken.write_text(fleet.config_path.read_text().replace("mode: local", "mode: locale"))
    command: list[Any] = [part if part != str(fleet.config_path) else broken for part in fleet.command("check")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert "fleet.yaml:" in done.stderr
    assert "mode" in done.stderr

"""The generator: its manifest is the truth, and what it makes is as varied as it says."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import pytest

from replication.errors import EventError, Transient
from replication.ports import Message, Publisher
from tests.support.analytics import T0, schema, settings
from workers.publish.generator import Generated, Generator, Mix
from workers.runtime.publishing import publish_stream

COUNT = 5_000


def generated(seed: int = 1, **mix: Any) -> list[Generated]:
    generator = Generator(settings(), region="eu", seed=seed, now=lambda: T0, mix=Mix(**mix))
    return list(generator.messages(COUNT))


def test_a_seed_gives_the_same_events_and_another_seed_others() -> None:
    assert generated() == generated()
    assert not {one.line["id"] for one in generated()} & {one.line["id"] for one in generated(seed=2)} - {""}


def test_what_the_manifest_calls_valid_is_and_the_rest_is_not() -> None:
    checked, reasons = schema(), Counter[str]()
    for one in generated(invalid=0.2):
        try:
            event = checked.decode(one.message)
        except EventError as error:
            reasons[error.reason] += 1
            assert not one.line["valid"]
        else:
            assert one.line["valid"]
            assert (event.id, event.type, event.user) == (one.line["id"], one.line["type"], one.line["user"])
    assert set(reasons) == {"undecodable", "missing_attribute", "unknown_type", "invalid"}


def test_a_group_is_what_shares_an_identity() -> None:
    checked = schema()
    group_of: dict[bytes, str] = {}
    repeated_keys = 0
    for one in generated():
        if not one.line["valid"]:
            continue
        identities = checked.decode(one.message).identities
        known = {group_of[identity] for identity in identities if identity in group_of}
        assert known <= {one.line["group"]}
        repeated_keys += bool(known) and identities[0] not in group_of
        group_of.update(dict.fromkeys(identities, one.line["group"]))
    assert repeated_keys > 20, "some duplicates have an id of their own"


def test_the_shares_are_those_asked_for_and_users_follow_zipf() -> None:
    lines = [one.line for one in generated(duplicates=0.1, invalid=0.01)]
    valid = [line for line in lines if line["valid"]]
    assert len(lines) - len(valid) == pytest.approx(COUNT * 0.01, rel=0.4)
    assert len(valid) - len({line["group"] for line in valid}) == pytest.approx(COUNT * 0.1, rel=0.2)
    [(_, most), *_] = Counter(line["user"] for line in valid).most_common(1)
    assert most > len(valid) * 0.08
    assert len({line["message"] for line in lines}) == COUNT


class Recorder(Publisher):
    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[Message] = []
        self.error = error

    def submit(self, message: Message) -> "Future[str]":
        future: Future[str] = Future()
        if self.error:
            future.set_exception(self.error)
        else:
            self.sent.append(message)
            future.set_result("id")
        return future

    def close(self) -> None:
        """Nothing is open."""


def test_publishers_take_turns_and_the_manifest_has_what_is_confirmed() -> None:
    publishers = [Recorder(), Recorder()]
    lines: list[Mapping[str, Any]] = []
    sent = generated()[:101]
    assert publish_stream(sent, publishers, confirmed=lines.append) == 101
    assert [len(one.sent) for one in publishers] == [51, 50]
    assert lines == [one.line for one in sent]


def test_what_is_not_confirmed_is_an_error_and_not_in_the_manifest() -> None:
    lines: list[Mapping[str, Any]] = []
    with pytest.raises(Transient):
        publish_stream(generated()[:10], [Recorder(Transient("away"))], confirmed=lines.append)
    assert lines == []

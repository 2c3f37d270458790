"""What every `Subscription` and `Publisher` promises, on every backend."""

import time
from collections.abc import Iterable
from concurrent.futures import Future

import pytest

from replication.errors import Refused
from replication.ports import Message, Received, Subscription
from tests.contract.conftest import Stream
from tests.support.polling import PATIENCE_S, eventually


def publish(stream: Stream, *messages: Message) -> list[str]:
    futures: list[Future[str]] = [stream.publisher.submit(message) for message in messages]
    return [future.result(PATIENCE_S) for future in futures]


def pull_ids(subscription: Subscription, wanted: Iterable[str]) -> dict[str, Received]:
    """Pull until every id in `wanted` has been delivered; what else comes is returned too."""
    received: dict[str, Received] = {}

    def complete() -> bool:
        received.update({one.id: one for one in subscription.pull(100, timeout=1)})
        return received.keys() >= set(wanted)

    eventually(complete)
    return received


def test_data_and_attributes_arrive_as_they_were_sent(stream: Stream) -> None:
    sent = [
        Message(bytes(range(256)), {"ce-id": "1", "kind": "write", "é": "ü 日本", "empty": ""}),
        Message(b"data alone"),
        Message(b"", {"only": "attributes"}),
        Message(b"x", {"most": "v" * 1_024}),
    ]
    ids = publish(stream, *sent)
    received = pull_ids(stream.subscription, ids)
    assert [received[id].message.data for id in ids] == [message.data for message in sent]
    assert [dict(received[id].message.attributes) for id in ids] == [dict(one.attributes) for one in sent]


def test_each_message_has_an_id_of_its_own_and_a_time(stream: Stream) -> None:
    ids = publish(stream, *[Message(b"same")] * 10)
    assert len(set(ids)) == 10
    now = time.time_ns() // 1_000
    assert all(abs(one.publish_time - now) < 60_000_000 for one in pull_ids(stream.subscription, ids).values())


def test_an_acknowledged_message_is_gone_and_the_others_come_again(stream: Stream) -> None:
    first, second = publish(stream, Message(b"1"), Message(b"2"))
    received = pull_ids(stream.subscription, [first, second])
    stream.subscription.acknowledge([received[first].ack_id])
    stream.subscription.extend([received[second].ack_id], 0)
    assert set(pull_ids(stream.subscription, [second])) == {second}


def test_a_released_message_comes_again_with_the_same_id_and_another_ack_id(stream: Stream) -> None:
    [id] = publish(stream, Message(b"1", {"a": "b"}))
    once = pull_ids(stream.subscription, [id])[id]
    stream.subscription.extend([once.ack_id], 0)
    again = pull_ids(stream.subscription, [id])[id]
    assert (again.message.data, dict(again.message.attributes)) == (b"1", {"a": "b"})
    assert again.ack_id != once.ack_id


def test_a_message_in_hand_is_not_delivered_again(stream: Stream) -> None:
    [first] = publish(stream, Message(b"1"))
    held = pull_ids(stream.subscription, [first])[first]
    stream.subscription.extend([held.ack_id], 60)
    [second] = publish(stream, Message(b"2"))
    assert set(pull_ids(stream.subscription, [second])) == {second}


def test_an_extension_is_counted_from_now(stream: Stream) -> None:
    """A lease of 60 s can be cut to 1: the message comes again well before the old deadline."""
    [id] = publish(stream, Message(b"1"))
    held = pull_ids(stream.subscription, [id])[id]
    stream.subscription.extend([held.ack_id], 60)
    stream.subscription.extend([held.ack_id], 1)
    assert pull_ids(stream.subscription, [id])[id].ack_id != held.ack_id


def test_a_pull_takes_no_more_than_its_limit(stream: Stream) -> None:
    ids = publish(stream, *[Message(b"x")] * 5)
    seen: list[str] = []

    def complete() -> bool:
        pulled = stream.subscription.pull(2, timeout=1)
        assert len(pulled) <= 2
        seen.extend(one.id for one in pulled)
        return len(seen) >= len(ids)

    eventually(complete)
    assert sorted(seen) == sorted(ids)


def test_an_empty_subscription_answers_with_nothing(stream: Stream) -> None:
    assert stream.subscription.pull(10, timeout=0.5) == []


def test_nothing_to_acknowledge_or_extend_is_no_error(stream: Stream) -> None:
    stream.subscription.acknowledge([])
    stream.subscription.extend([], 10)
    [id] = publish(stream, Message(b"1"))
    assert id in pull_ids(stream.subscription, [id])


@pytest.mark.parametrize(
    "message",
    [
        Message(b""),
        Message(b"x", {"too long": "v" * 1_025}),
        Message(b"x", {"k" * 257: "v"}),
        Message(b"x", {"": "v"}),
        Message(b"x", {str(n): "v" for n in range(101)}),
        Message(b"x" * 10_000_001),
    ],
    ids=["nothing", "long value", "long key", "empty key", "many attributes", "large"],
)
def test_what_pubsub_never_takes_is_refused_and_nothing_else_with_it(stream: Stream, message: Message) -> None:
    refused = stream.publisher.submit(message)
    [id] = publish(stream, Message(b"good"))
    with pytest.raises(Refused):
        refused.result(PATIENCE_S)
    assert set(pull_ids(stream.subscription, [id])) == {id}

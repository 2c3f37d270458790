"""Publishing: nothing counts as published that Pub/Sub has not confirmed, and no wait is endless."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import pytest

from replication.errors import FirefleetError, Refused, Transient
from replication.ports import Message, Publisher
from workers.runtime.publishing import (
    UNCONFIRMED_MAX,
    publish_all,
    publish_each,
    publish_in_loop,
    publish_stream,
)


class Scripted(Publisher):
    """Answers each message with the next of its answers: an id, a failure, or None for no answer at all."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self._answers = list(answers)
        self.sent: list[Future[str]] = []
        self.messages: list[Message] = []

    def submit(self, message: Message) -> "Future[str]":
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()
        answer = self._answers.pop(0) if self._answers else "id"
        if isinstance(answer, str):
            future.set_result(answer)
        elif answer is not None:
            future.set_exception(answer)
        self.sent.append(future)
        self.messages.append(message)
        return future

    def close(self) -> None:
        """Nothing is open."""


class Closed(Publisher):
    """A publisher that gives its messages up."""

    def submit(self, message: Message) -> "Future[str]":
        future: Future[str] = Future()
        future.cancel()
        return future

    def close(self) -> None:
        """Nothing is open."""


MESSAGES = [Message(b"%d" % number) for number in range(3)]


def one_in_loop(publisher: Publisher, messages: Sequence[Message], *, seconds: float) -> None:
    asyncio.run(publish_in_loop(publisher, messages[0], seconds=seconds))


Raising = Callable[..., None]
RAISING = pytest.mark.parametrize("publish", [publish_all, one_in_loop])


def test_each_message_has_its_own_outcome() -> None:
    refused, away = Refused("too large"), Transient("away")
    assert publish_each(Scripted(refused, "id", away), MESSAGES) == [refused, None, away]


def test_without_an_answer_a_message_has_failed_and_the_others_have_not() -> None:
    outcomes = publish_each(Scripted("id", None, "id"), MESSAGES, seconds=0.01)
    assert [type(outcome) for outcome in outcomes] == [type(None), Transient, type(None)]
    assert "did not confirm a message within 0.01 s" in str(outcomes[1])


@RAISING
def test_without_an_answer_it_is_transient(publish: Raising) -> None:
    with pytest.raises(Transient, match=r"within 0\.01 s"):
        publish(Scripted(None), MESSAGES[:1], seconds=0.01)


@RAISING
@pytest.mark.parametrize("failure", [Refused("too large"), Transient("away")])
def test_a_failure_is_raised_as_it_is(publish: Raising, failure: FirefleetError) -> None:
    with pytest.raises(type(failure)) as caught:
        publish(Scripted(failure), MESSAGES, seconds=1)
    assert caught.value is failure


@RAISING
def test_a_message_that_the_publisher_gave_up_is_transient(publish: Raising) -> None:
    with pytest.raises(Transient, match="closed before"):
        publish(Closed(), MESSAGES, seconds=1)


def test_a_wait_in_vain_does_not_cancel_the_message() -> None:
    """The publisher may be about to send it."""
    publisher = Scripted(None)
    with pytest.raises(Transient):
        one_in_loop(publisher, MESSAGES, seconds=0.01)
    assert not publisher.sent[0].cancelled()


def test_a_stream_is_confirmed_in_order_over_publishers_in_turn() -> None:
    publishers = [Scripted(), Scripted()]
    confirmed: list[int] = []
    stream = [(message, number) for number, message in enumerate(MESSAGES)]
    assert publish_stream(stream, publishers, confirmed=confirmed.append) == 3
    assert confirmed == [0, 1, 2]
    assert [publisher.messages for publisher in publishers] == [[MESSAGES[0], MESSAGES[2]], [MESSAGES[1]]]


def test_a_stream_ends_with_its_first_failure_and_confirms_nothing_after_it() -> None:
    confirmed: list[int] = []
    stream = [(message, number) for number, message in enumerate(MESSAGES)]
    with pytest.raises(Transient, match="away"):
        publish_stream(stream, [Scripted("id", Transient("away"))], confirmed=confirmed.append)
    assert confirmed == [0]


class AnswersWhenFull(Publisher):
    """Confirms nothing until `size` messages wait, or the stream of `count` messages is at its end."""

    def __init__(self, *, size: int, count: int) -> None:
        self._size = size
        self._left = count
        self._waiting: list[Future[str]] = []

    def submit(self, message: Message) -> "Future[str]":
        self._left -= 1
        self._waiting.append(Future())
        sent = self._waiting[-1]
        if len(self._waiting) == self._size or not self._left:
            for future in self._waiting:
                future.set_result("id")
            self._waiting.clear()
        return sent

    def close(self) -> None:
        """Nothing is open."""


def test_a_stream_fills_its_window_before_it_waits_for_an_answer() -> None:
    count = UNCONFIRMED_MAX + 10
    confirmed: list[int] = []
    stream = [(Message(b"x"), number) for number in range(count)]
    publisher = AnswersWhenFull(size=UNCONFIRMED_MAX, count=count)
    assert publish_stream(stream, [publisher], confirmed=confirmed.append) == count
    assert confirmed == list(range(count))


def test_a_stream_takes_no_more_messages_than_its_window_before_the_first_is_confirmed() -> None:
    taken: list[int] = []
    confirmed_at: list[int] = []
    stream = ((Message(b"x"), taken.append(number)) for number in range(UNCONFIRMED_MAX + 10))
    publisher = AnswersWhenFull(size=UNCONFIRMED_MAX, count=UNCONFIRMED_MAX + 10)
    publish_stream(stream, [publisher], confirmed=lambda _: confirmed_at.append(len(taken)))
    assert confirmed_at[0] == UNCONFIRMED_MAX

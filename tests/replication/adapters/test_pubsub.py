"""What is particular to the Pub/Sub adapter, beyond the contract every adapter keeps."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.adapters.pubsub import (
    PubsubAdmin,
    PubsubPublisher,
    PubsubSubscription,
    SubscriptionSettings,
    ack_chunks,
    open_publisher,
    open_subscription,
)
from replication.errors import Refused, Transient
from replication.ports import Message, Received
from tests.support.polling import PATIENCE_S, eventually
from workers.local.emulators import PubsubEmulator, free_port


@contextmanager
def topic(emulator: PubsubEmulator, project: str) -> Iterator[tuple[PubsubPublisher, PubsubSubscription]]:
    """A publisher and a subscription on a topic of this test's own."""
    with closing(PubsubAdmin(project, emulator_host=emulator.host)) as admin:
        admin.ensure_topic("changes")
        admin.ensure_subscription("changes-eu", SubscriptionSettings(topic="changes"))
    with (
        closing(open_publisher(project, "changes", emulator_host=emulator.host)) as publisher,
        closing(open_subscription(project, "changes-eu", emulator_host=emulator.host)) as subscription,
    ):
        yield publisher, subscription


@given(st.lists(st.text("abc", min_size=1), max_size=20), st.integers(0, 6_000), st.integers(1, 5_000))
def test_chunks_keep_every_id_in_order_within_both_limits(ids: list[str], many: int, length: int) -> None:
    ack_ids = [*ids, *["x" * length] * min(many, 3_000_000 // length)]
    chunks = [list(chunk) for chunk in ack_chunks(ack_ids)]
    assert [one for chunk in chunks for one in chunk] == ack_ids
    assert all(0 < len(chunk) <= 2_500 for chunk in chunks)
    assert all(sum(len(one) + 4 for one in chunk) <= 512 * 1024 for chunk in chunks)
    # No chunk could have taken the next one's first id too: no request is wasted.
    for chunk, following in itertools.pairwise(chunks):
        size = sum(len(one) + 4 for one in [*chunk, following[0]])
        assert len(chunk) == 2_500 or size > 511 * 1024


@pytest.mark.emulator
def test_an_idle_pull_ends_by_itself_and_a_message_ends_one_that_would_wait_for_long(
    pubsub_emulator: PubsubEmulator, project: str
) -> None:
    with topic(pubsub_emulator, project) as (publisher, subscription), ThreadPoolExecutor(1) as pool:
        assert subscription.pull(10, timeout=0.5) == []
        waiting = pool.submit(subscription.pull, 10, timeout=10 * PATIENCE_S)
        publisher.submit(Message(b"woken")).result(PATIENCE_S)
        (received,) = waiting.result(PATIENCE_S)
        assert received.message.data == b"woken"


@pytest.mark.emulator
def test_idle_pulls_leave_nothing_that_later_messages_are_given_to(
    pubsub_emulator: PubsubEmulator, project: str
) -> None:
    """With a deadline of 60 s, a message given to an abandoned pull would be missing here."""
    with topic(pubsub_emulator, project) as (publisher, subscription):
        for _ in range(5):
            assert subscription.pull(10, timeout=0.05) == []
        for number in range(5):
            publisher.submit(Message(b"%d" % number)).result(PATIENCE_S)
        received: list[Received] = []

        def all_received() -> bool:
            received.extend(subscription.pull(10, timeout=1))
            return len(received) >= 5

        eventually(all_received)
        assert sorted(one.message.data for one in received) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.emulator
def test_attributes_named_like_the_librarys_parameters_arrive(
    pubsub_emulator: PubsubEmulator, project: str
) -> None:
    attributes = {name: name.upper() for name in ("self", "topic", "data", "ordering_key", "retry", "timeout")}
    with topic(pubsub_emulator, project) as (publisher, subscription):
        identity = publisher.submit(Message(b"x", attributes)).result(PATIENCE_S)
        (received,) = subscription.pull(10, timeout=PATIENCE_S)
        assert (received.id, received.message) == (identity, Message(b"x", attributes))


@pytest.mark.emulator
@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Message(b""), "neither data nor attributes"),
        (Message(b"x", {"error": "é" * 513}), "attribute error of 1026 bytes, 1024 are allowed"),
        (Message(b"x", {"": "value"}), "name of 0 bytes"),
        (Message(b"x", {str(number): "" for number in range(101)}), "101 attributes, 100 are allowed"),
        (Message(b"x" * 10_000_001), "10000001 bytes, 10000000 are allowed"),
        (Message(b"x" * 10_000_000), "maximum allowed size"),
    ],
)
def test_a_message_pubsub_would_refuse_is_refused_alone(
    pubsub_emulator: PubsubEmulator, project: str, bad: Message, why: str
) -> None:
    """Sent, it would void the whole batch, and its neighbours would be dead-lettered with it."""
    with topic(pubsub_emulator, project) as (publisher, subscription):
        refused, good = publisher.submit(bad), publisher.submit(Message(b"good"))
        with pytest.raises(Refused, match=why):
            refused.result(PATIENCE_S)
        assert good.result(PATIENCE_S)
        assert [one.message.data for one in subscription.pull(10, timeout=PATIENCE_S)] == [b"good"]


@pytest.mark.emulator
def test_closing_sends_what_is_waiting(pubsub_emulator: PubsubEmulator, project: str) -> None:
    with topic(pubsub_emulator, project) as (_, subscription):
        publisher = open_publisher(project, "changes", emulator_host=pubsub_emulator.host)
        sent = [publisher.submit(Message(b"%d" % number)) for number in range(2_000)]
        publisher.close()
        assert len({one.result(PATIENCE_S) for one in sent}) == 2_000
        received: set[str] = set()

        def all_received() -> bool:
            received.update(one.id for one in subscription.pull(1_000, timeout=1))
            return len(received) >= 2_000

        eventually(all_received)


@pytest.mark.emulator
def test_what_is_missing_is_transient_and_names_the_remedy(
    pubsub_emulator: PubsubEmulator, project: str
) -> None:
    missing = f"projects/{project}/subscriptions/nobody.*NOT_FOUND.*firefleet check"
    with closing(open_subscription(project, "nobody", emulator_host=pubsub_emulator.host)) as subscription:
        with pytest.raises(Transient, match=missing):
            subscription.pull(1, timeout=1)
        with pytest.raises(Transient, match=missing):
            subscription.acknowledge(["a"])
    with (
        closing(open_publisher(project, "nothing", emulator_host=pubsub_emulator.host)) as publisher,
        pytest.raises(Transient, match=f"projects/{project}/topics/nothing.*NOT_FOUND.*firefleet check"),
    ):
        publisher.submit(Message(b"x")).result(PATIENCE_S)


def test_publishing_where_nothing_listens_fails() -> None:
    publisher = open_publisher("some-project", "changes", emulator_host=f"127.0.0.1:{free_port()}")
    with closing(publisher), pytest.raises(Transient, match="projects/some-project/topics/changes"):
        publisher.submit(Message(b"x")).result(PATIENCE_S)


@pytest.mark.emulator
def test_the_parameter_names_the_emulator_whatever_the_environment_says(
    pubsub_emulator: PubsubEmulator, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{free_port()}")
    with topic(pubsub_emulator, project) as (publisher, subscription):
        publisher.submit(Message(b"x")).result(PATIENCE_S)
        assert len(subscription.pull(10, timeout=PATIENCE_S)) == 1


@pytest.mark.emulator
def test_ensuring_is_idempotent_and_settings_come_back_as_given(
    pubsub_emulator: PubsubEmulator, project: str
) -> None:
    settings = SubscriptionSettings(
        topic="changes",
        filter='NOT attributes.replica = "eu"',
        ack_deadline=30,
        retention=3_600,
        dead_letter_topic="changes-dead-letters",
        backoff_min=2,
        backoff_max=30,
    )
    with closing(PubsubAdmin(project, emulator_host=pubsub_emulator.host)) as admin:
        assert (admin.has_topic("changes"), admin.describe("changes-eu")) == (False, None)
        assert [admin.ensure_topic("changes"), admin.ensure_topic("changes")] == [True, False]
        assert admin.ensure_topic("changes-dead-letters")
        assert [admin.ensure_subscription("changes-eu", settings) for _ in range(2)] == [True, False]
        assert admin.has_topic("changes")
        assert admin.describe("changes-eu") == settings
        for _ in range(2):
            admin.delete_subscription("changes-eu")
            admin.delete_topic("changes")
        assert (admin.has_topic("changes"), admin.describe("changes-eu")) == (False, None)


@pytest.mark.emulator
def test_a_pub_sub_that_hangs_is_told_from_an_idle_subscription(project: str) -> None:
    """A pull without an answer may only be idle; several in a row are looked into."""
    with PubsubEmulator.start() as emulator:
        with closing(PubsubAdmin(project, emulator_host=emulator.host)) as admin:
            admin.ensure_topic("changes")
            admin.ensure_subscription("changes-eu", SubscriptionSettings(topic="changes"))
        with closing(open_subscription(project, "changes-eu", emulator_host=emulator.host)) as subscription:
            assert [subscription.pull(10, timeout=0.1) for _ in range(6)] == [[]] * 6
            emulator.pause()

            def hangs() -> bool:
                try:
                    subscription.pull(10, timeout=0.1)
                except Transient:
                    return True
                return False

            assert eventually(hangs)
            emulator.resume()

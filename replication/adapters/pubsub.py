"""Pub/Sub as a `Subscription` and a `Publisher`; its administration is in `pubsub_admin`.

Receiving is unary Pull on a plain stub: the call is the batch and the back-pressure, and no lease, stream or
callback thread of a library can stall behind it. Publishing is the official client's batching publisher. The
emulator is named by a parameter; the clients' own `PUBSUB_EMULATOR_HOST` is not relied on.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

import grpc
from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry
from google.cloud.pubsub_v1 import PublisherClient as BatchingClient
from google.cloud.pubsub_v1 import types as settings
from google.cloud.pubsub_v1.publisher.exceptions import MessageTooLargeError
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1 import types as pubsub_types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from replication.adapters.pubsub_admin import PubsubAdmin
from replication.adapters.rpc import connect, routing, status, translate, translate_google
from replication.documents.wire import micros
from replication.errors import Refused, Transient
from replication.limits import (
    ATTRIBUTE_BYTES_MAX,
    ATTRIBUTE_KEY_BYTES_MAX,
    ATTRIBUTES_MAX,
    MESSAGE_BYTES_MAX,
)
from replication.ports import Message, Publisher, Received, Subscription, SubscriptionSettings

__all__ = [
    "PubsubAdmin",
    "PubsubPublisher",
    "PubsubSubscription",
    "SubscriptionSettings",
    "open_publisher",
    "open_subscription",
]

_PullRequest: Any = pubsub_types.PullRequest.pb()
_PullResponse: Any = pubsub_types.PullResponse.pb()
_AcknowledgeRequest: Any = pubsub_types.AcknowledgeRequest.pb()
_ModifyAckDeadlineRequest: Any = pubsub_types.ModifyAckDeadlineRequest.pb()
_GetSubscriptionRequest: Any = pubsub_types.GetSubscriptionRequest.pb()
_Subscription: Any = pubsub_types.Subscription.pb()

_SERVICE = "/google.pubsub.v1.Subscriber/"

# A server that sees a pull's deadline answers "nothing" shortly before it (the emulator 0.95 s before). Asking
# for a second more than we mean to wait makes its answer come when ours is due, instead of a spin of empty
# answers for short waits, and leaves no abandoned pull that messages could be given to.
_ANSWER_SECONDS = 1.0
# Longer waits gain nothing, as a message ends the wait at once; below the keepalive's 30 s an idle pull
# never pings, which a server may take for an attack (the emulator closes the connection after three).
_WAIT_SECONDS_MAX = 20.0
_PULL_MESSAGES_MAX = 1_000
_SETTLE_SECONDS = 10.0

# Pub/Sub's limits on one request: 512 KiB, here with room for the subscription's name and each id's framing.
# https://cloud.google.com/pubsub/quotas#resource_limits
_ACK_IDS_MAX = 2_500
_ACK_BYTES_MAX = 512 * 1024 - 1_024
_ACK_ID_OVERHEAD = 4

_SILENT_PULLS_MAX = 4
_PROBE_SECONDS = 3.0

_PUBLISH_TRY_SECONDS = 5.0
_PUBLISH_SECONDS = 10.0
_PUBLISH_LATENCY_SECONDS = 0.005
_WAITING_MESSAGES_MAX = 10_000
_WAITING_BYTES_MAX = 64 * 1024 * 1024

_RETRIED = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)
_PUBLISH_RETRY = Retry(
    predicate=lambda error: (
        isinstance(error, google_errors.GoogleAPICallError) and error.grpc_status_code in _RETRIED
    ),
    initial=0.1,
    multiplier=2,
    maximum=2,
    timeout=_PUBLISH_SECONDS,
)

# Attributes are keyword arguments of the library's `publish`, next to its own parameters, which are these.
_PUBLISH_PARAMETERS = frozenset({"self", "topic", "data", "ordering_key", "retry", "timeout"})


class PubsubSubscription(Subscription):
    """One subscription over one channel, which it owns; any number of threads may share it."""

    def __init__(self, channel: grpc.Channel, *, project: str, name: str) -> None:
        self._name = SubscriberClient.subscription_path(project, name)
        self._channel = channel
        self._metadata = (routing("subscription", self._name),)
        self._pull = channel.unary_unary(
            f"{_SERVICE}Pull",
            request_serializer=_PullRequest.SerializeToString,
            response_deserializer=_PullResponse.FromString,
        )
        self._acknowledge = channel.unary_unary(
            f"{_SERVICE}Acknowledge",
            request_serializer=_AcknowledgeRequest.SerializeToString,
            response_deserializer=Empty.FromString,
        )
        self._modify = channel.unary_unary(
            f"{_SERVICE}ModifyAckDeadline",
            request_serializer=_ModifyAckDeadlineRequest.SerializeToString,
            response_deserializer=Empty.FromString,
        )
        self._get = channel.unary_unary(
            f"{_SERVICE}GetSubscription",
            request_serializer=_GetSubscriptionRequest.SerializeToString,
            response_deserializer=_Subscription.FromString,
        )
        self._silent = 0

    def pull(self, limit: int, *, timeout: float) -> list[Received]:
        """See `Subscription.pull`; waits 20 s at most, takes 1,000 messages at most."""
        request = _PullRequest(subscription=self._name, max_messages=min(limit, _PULL_MESSAGES_MAX))
        deadline = min(timeout, _WAIT_SECONDS_MAX) + _ANSWER_SECONDS
        try:
            answer = self._pull(request, timeout=deadline, metadata=self._metadata)
        except grpc.RpcError as error:
            if status(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._ask_after_silence()
                return []
            raise translate(error, f"pulling from {self._name}") from error
        self._silent = 0
        return [_received(one) for one in answer.received_messages]

    def _ask_after_silence(self) -> None:
        """Raise `Transient` when Pub/Sub does not answer at all; a pull without an answer may only be idle."""
        self._silent += 1
        if self._silent % _SILENT_PULLS_MAX:
            return
        request = _GetSubscriptionRequest(subscription=self._name)
        try:
            self._get(request, timeout=_PROBE_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            if status(error) in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise translate(
                    error, f"{self._silent} pulls without an answer; looking up {self._name}"
                ) from error
            # Any other answer is one: the worker need not be allowed to look a subscription up.

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """See `Subscription.acknowledge`; several requests if one cannot hold them."""
        for chunk in ack_chunks(ack_ids):
            request = _AcknowledgeRequest(subscription=self._name, ack_ids=chunk)
            self._settle(self._acknowledge, request, f"acknowledging {_messages(len(chunk))} of")

    def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
        """See `Subscription.extend`; `seconds` is at most 600, Pub/Sub's limit."""
        for chunk in ack_chunks(ack_ids):
            request = _ModifyAckDeadlineRequest(
                subscription=self._name, ack_ids=chunk, ack_deadline_seconds=seconds
            )
            self._settle(self._modify, request, f"extending the deadline of {_messages(len(chunk))} of")

    def close(self) -> None:
        """See `Subscription.close`."""
        self._channel.close()

    def _settle(self, call: Any, request: Any, what: str) -> None:
        try:
            call(request, timeout=_SETTLE_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise translate(error, f"{what} {self._name}") from error


def _received(one: Any) -> Received:
    message = one.message
    attributes = message.attributes
    return Received(
        # Not `dict(attributes)`, which asks a protobuf map three times an entry.
        Message(message.data, {name: attributes[name] for name in attributes}),
        id=message.message_id,
        ack_id=one.ack_id,
        publish_time=micros(message.publish_time),
    )


def ack_chunks(ack_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut acknowledgement ids (ASCII) into requests that Pub/Sub accepts, in order."""
    start = size = 0
    for index, ack_id in enumerate(ack_ids):
        grown = size + len(ack_id) + _ACK_ID_OVERHEAD
        if index > start and (grown > _ACK_BYTES_MAX or index - start == _ACK_IDS_MAX):
            yield ack_ids[start:index]
            start, grown = index, len(ack_id) + _ACK_ID_OVERHEAD
        size = grown
    if start < len(ack_ids):
        yield ack_ids[start:]


def open_subscription(
    project: str, name: str, *, emulator_host: str | None = None, endpoint: str | None = None
) -> PubsubSubscription:
    """Open a subscription on an emulator, else at Google with application default credentials.

    `endpoint` replaces `pubsub.googleapis.com`: a regional one (`europe-west1-pubsub.googleapis.com`) keeps
    delivery in its region. Connects with the first call.
    """
    channel = connect(SubscriberGrpcTransport, emulator_host=emulator_host, endpoint=endpoint)
    return PubsubSubscription(channel, project=project, name=name)


class PubsubPublisher(Publisher):
    """The official batching client on one topic; any number of threads may share it.

    A message waits up to 5 ms to be batched, and 10 s in all for Pub/Sub to take it. While 10,000 messages or
    64 MiB wait, `submit` blocks: the limit on what a process holds while Pub/Sub is away.
    """

    def __init__(self, client: BatchingClient, *, project: str, topic: str) -> None:
        self._client = client
        self._topic = PublisherClient.topic_path(project, topic)
        self._waiting: set[Future[str]] = set()

    def submit(self, message: Message) -> "Future[str]":
        """See `Publisher.submit`."""
        answer: Future[str] = Future()
        answer.set_running_or_notify_cancel()
        if fault := _fault(message):
            answer.set_exception(Refused(f"publishing to {self._topic}: {fault}"))
            return answer
        self._waiting.add(answer)
        answer.add_done_callback(self._waiting.discard)
        if _PUBLISH_PARAMETERS.isdisjoint(message.attributes):
            self._publish_batched(message, answer)
        else:
            self._settle(answer, lambda: self._publish_alone(message))
        return answer

    def close(self) -> None:
        """See `Publisher.close`; waits for what is under way as long as one publish may take."""
        self._client.stop()
        wait(list(self._waiting), timeout=_PUBLISH_SECONDS + _PUBLISH_TRY_SECONDS)
        self._client.transport.close()

    def _publish_batched(self, message: Message, answer: "Future[str]") -> None:
        try:
            sent = self._client.publish(self._topic, message.data, **message.attributes)
        except MessageTooLargeError as error:
            # Within `_fault`'s limit, but not with its framing.
            answer.set_exception(Refused(f"publishing to {self._topic}: {error}"))
        else:
            sent.add_done_callback(lambda done: self._settle(answer, done.result))

    def _publish_alone(self, message: Message) -> str:
        """Publish past the batching: for attributes whose names the library's `publish` cannot pass on."""
        one = pubsub_types.PubsubMessage(data=message.data, attributes=dict(message.attributes))
        # The generated method, which the batching client's `publish` hides.
        answer = PublisherClient.publish(
            self._client,
            topic=self._topic,
            messages=[one],
            retry=_PUBLISH_RETRY,
            timeout=_PUBLISH_TRY_SECONDS,
        )
        return str(answer.message_ids[0])

    def _settle(self, answer: "Future[str]", result: Callable[[], str]) -> None:
        call = f"publishing to {self._topic}"
        try:
            answer.set_result(result())
        except google_errors.GoogleAPIError as error:
            failed = translate_google(error, call)
            failed.__cause__ = error
            answer.set_exception(failed)
        except Exception as error:  # noqa: BLE001 - it ends in the future: whoever waits must learn of it
            failed = Transient(f"{call}: {type(error).__name__}: {error}")
            failed.__cause__ = error
            answer.set_exception(failed)


def _fault(message: Message) -> str | None:
    """Why Pub/Sub would refuse this message; None if it would not.

    Checked here, because a refused message takes the whole batch it is sent in with it.
    """
    if not message.data and not message.attributes:
        return "it has neither data nor attributes"
    if len(message.attributes) > ATTRIBUTES_MAX:
        return f"{len(message.attributes)} attributes, {ATTRIBUTES_MAX} are allowed"
    size = len(message.data)
    for key, value in message.attributes.items():
        key_bytes, value_bytes = len(key.encode()), len(value.encode())
        if not 0 < key_bytes <= ATTRIBUTE_KEY_BYTES_MAX:
            return f"an attribute's name of {key_bytes} bytes, 1 to {ATTRIBUTE_KEY_BYTES_MAX} are allowed"
        if value_bytes > ATTRIBUTE_BYTES_MAX:
            return f"attribute {key} of {value_bytes} bytes, {ATTRIBUTE_BYTES_MAX} are allowed"
        size += key_bytes + value_bytes
    if size > MESSAGE_BYTES_MAX:
        return f"{size} bytes, {MESSAGE_BYTES_MAX} are allowed"
    return None


def open_publisher(
    project: str, topic: str, *, emulator_host: str | None = None, endpoint: str | None = None
) -> PubsubPublisher:
    """Open a publisher to a topic on an emulator, else at Google; see `open_subscription`."""
    channel = connect(PublisherGrpcTransport, emulator_host=emulator_host, endpoint=endpoint)
    client = BatchingClient(
        batch_settings=settings.BatchSettings(
            max_messages=1_000, max_bytes=1_000_000, max_latency=_PUBLISH_LATENCY_SECONDS
        ),
        publisher_options=settings.PublisherOptions(
            flow_control=settings.PublishFlowControl(
                message_limit=_WAITING_MESSAGES_MAX,
                byte_limit=_WAITING_BYTES_MAX,
                limit_exceeded_behavior=settings.LimitExceededBehavior.BLOCK,
            ),
            retry=_PUBLISH_RETRY,
            timeout=_PUBLISH_TRY_SECONDS,
        ),
        transport=PublisherGrpcTransport(channel=channel),
    )
    return PubsubPublisher(client, project=project, topic=topic)


def _messages(number: int) -> str:
    return "1 message" if number == 1 else f"{number} messages"

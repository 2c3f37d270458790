"""Firestore and Pub/Sub as bare gRPC stubs: nothing between a call and its protobuf messages.

The stage prepares with them, and the ceiling is made of them: it must not share the adapters it is there to
judge.
"""

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.experimental
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types as pubsub_types

from replication.documents.wire import (
    BatchGetDocumentsRequest,
    BatchGetDocumentsResponse,
    BatchWriteRequest,
    BatchWriteResponse,
)

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # As the worker's adapters: without it a streamed read costs twice as much.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
)
_OWNER = (("authorization", "Bearer owner"),)
_CALL_S_MAX = 60.0

PubsubMessage: Any = pubsub_types.PubsubMessage.pb()
_PublishRequest: Any = pubsub_types.PublishRequest.pb()
_PublishResponse: Any = pubsub_types.PublishResponse.pb()
_PullRequest: Any = pubsub_types.PullRequest.pb()
_PullResponse: Any = pubsub_types.PullResponse.pb()
_AcknowledgeRequest: Any = pubsub_types.AcknowledgeRequest.pb()


class Firestore:
    """One database at the emulator."""

    def __init__(self, host: str, database: str) -> None:
        self._database = database
        self._channel = grpc.insecure_channel(host, options=_OPTIONS)
        service = "/google.firestore.v1.Firestore/"
        self._get = self._channel.unary_stream(
            f"{service}BatchGetDocuments",
            request_serializer=BatchGetDocumentsRequest.SerializeToString,
            response_deserializer=BatchGetDocumentsResponse.FromString,
        )
        self._write = self._channel.unary_unary(
            f"{service}BatchWrite",
            request_serializer=BatchWriteRequest.SerializeToString,
            response_deserializer=BatchWriteResponse.FromString,
        )

    def get(self, names: Sequence[str], *, mask: Sequence[str] = ()) -> list[Any]:
        """The answers of one BatchGetDocuments; `mask` names the only fields wanted."""
        request = BatchGetDocumentsRequest(database=self._database, documents=names)
        request.mask.field_paths.extend(mask)
        if not mask:
            request.ClearField("mask")
        return list(self._get(request, timeout=_CALL_S_MAX, metadata=_OWNER))

    def write(self, writes: Sequence[Any]) -> Any:
        """The answer of one BatchWrite."""
        request = BatchWriteRequest(database=self._database, writes=writes)
        return self._write(request, timeout=_CALL_S_MAX, metadata=_OWNER)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class Pubsub:
    """One topic and one subscription to it at the emulator."""

    def __init__(self, host: str, *, project: str, topic: str, subscription: str) -> None:
        self._topic = f"projects/{project}/topics/{topic}"
        self._subscription = f"projects/{project}/subscriptions/{subscription}"
        self._channel = grpc.insecure_channel(host, options=_OPTIONS)
        self._publish = self._channel.unary_unary(
            "/google.pubsub.v1.Publisher/Publish",
            request_serializer=_PublishRequest.SerializeToString,
            response_deserializer=_PublishResponse.FromString,
        )
        self._pull = self._channel.unary_unary(
            "/google.pubsub.v1.Subscriber/Pull",
            request_serializer=_PullRequest.SerializeToString,
            response_deserializer=_PullResponse.FromString,
        )
        self._acknowledge = self._channel.unary_unary(
            "/google.pubsub.v1.Subscriber/Acknowledge",
            request_serializer=_AcknowledgeRequest.SerializeToString,
            response_deserializer=Empty.FromString,
        )

    def publish(self, messages: Sequence[Any]) -> None:
        """Publish messages in one request."""
        self._publish(_PublishRequest(topic=self._topic, messages=messages), timeout=_CALL_S_MAX)

    def pull(self, limit: int, *, timeout: float) -> list[Any]:
        """The received messages of one Pull; empty when none came within `timeout` seconds."""
        request = _PullRequest(subscription=self._subscription, max_messages=limit)
        try:
            return list(self._pull(request, timeout=timeout).received_messages)
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return []
            raise

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Acknowledge deliveries in one request."""
        request = _AcknowledgeRequest(subscription=self._subscription, ack_ids=ack_ids)
        self._acknowledge(request, timeout=_CALL_S_MAX)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

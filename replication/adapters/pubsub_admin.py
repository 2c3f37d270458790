"""Topics and subscriptions of Pub/Sub: created, looked up, deleted, with the official clients."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry, if_exception_type
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1 import types as pubsub_types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from replication.adapters.rpc import connect, translate_google
from replication.errors import Refused, Transient
from replication.limits import DELIVERY_ATTEMPTS_MAX
from replication.ports import SubscriptionSettings

T = TypeVar("T")

_CALL_SECONDS = 30.0
_REACH_SECONDS = 5.0
_RETRY = Retry(
    predicate=if_exception_type(google_errors.ServiceUnavailable),
    initial=0.2,
    maximum=2.0,
    timeout=_CALL_SECONDS,
)
"""Instead of the client's own, which goes on for ten minutes whatever the timeout says."""


def start_emulator(host: str, project: str) -> str:
    """The command that starts the official emulator at host:port."""
    return f"gcloud beta emulators pubsub start --host-port={host} --project={project}"


class PubsubAdmin:
    """Topics and subscriptions of one project: for provisioning, checks and tests.

    Every call is bounded and raises `Transient` or `Refused`; `ensure_…` and `delete_…` are idempotent.
    """

    def __init__(self, project: str, *, emulator_host: str | None = None) -> None:
        self._project = project
        self._emulator_host = emulator_host
        self._channel = connect(PublisherGrpcTransport, emulator_host=emulator_host)
        self._publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self._subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))

    def reach(self, topic: str) -> bool:
        """Whether a topic exists, asked once: where nothing answers, `Transient` says so within seconds.

        To be asked before anything that would be tried again and again. `PermissionDenied` is an answer too:
        `Transient` as elsewhere, with its own remedy.
        """
        name = self._topic(topic)
        try:
            self._publisher.get_topic(request={"topic": name}, timeout=_REACH_SECONDS, retry=None)
        except google_errors.NotFound:
            return False
        except (google_errors.ServiceUnavailable, google_errors.DeadlineExceeded) as error:
            raise Transient(self._silence(error)) from error
        except google_errors.GoogleAPIError as error:
            raise translate_google(error, f"looking up topic {name}") from error
        return True

    def _silence(self, error: google_errors.GoogleAPICallError) -> str:
        if self._emulator_host:
            start = start_emulator(self._emulator_host, self._project)
            return f"no Pub/Sub emulator answers at {self._emulator_host}; start it: {start}"
        return (
            f"Pub/Sub does not answer within {_REACH_SECONDS:.0f} s ({error.message}); is this machine online?"
        )

    def ensure_topic(self, topic: str) -> bool:
        """Create a topic unless it exists; whether it was created."""
        name = self._topic(topic)
        return self._created(f"creating topic {name}", self._publisher.create_topic, request={"name": name})

    def ensure_subscription(self, name: str, settings: SubscriptionSettings) -> bool:
        """Create a subscription unless it exists; whether it was created. An existing one is left as it is."""
        path = self._subscription(name)
        try:
            return self._created(
                f"creating subscription {path}",
                self._subscriber.create_subscription,
                request=self._request(path, settings),
            )
        except google_errors.NotFound as error:
            raise Refused(
                f"creating subscription {path}: topic {settings.topic!r} does not exist; create it first"
            ) from error

    def has_topic(self, topic: str) -> bool:
        """Whether a topic exists."""
        name = self._topic(topic)
        found = self._found(f"looking up topic {name}", self._publisher.get_topic, request={"topic": name})
        return found is not None

    def describe(self, name: str) -> SubscriptionSettings | None:
        """A subscription's settings; None if no subscription has that name."""
        path = self._subscription(name)
        found = self._found(
            f"looking up subscription {path}",
            self._subscriber.get_subscription,
            request={"subscription": path},
        )
        return None if found is None else _settings(pubsub_types.Subscription.pb(found))

    def delete_topic(self, topic: str) -> None:
        """Delete a topic if it exists; its subscriptions keep what they hold."""
        name = self._topic(topic)
        self._found(f"deleting topic {name}", self._publisher.delete_topic, request={"topic": name})

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription, with all it holds, if it exists."""
        path = self._subscription(name)
        self._found(
            f"deleting subscription {path}",
            self._subscriber.delete_subscription,
            request={"subscription": path},
        )

    def close(self) -> None:
        """Release connections; no call may follow."""
        self._channel.close()

    def _topic(self, topic: str) -> str:
        return PublisherClient.topic_path(self._project, topic)

    def _subscription(self, name: str) -> str:
        return SubscriberClient.subscription_path(self._project, name)

    def _request(self, path: str, settings: SubscriptionSettings) -> dict[str, Any]:
        request = {
            "name": path,
            "topic": self._topic(settings.topic),
            "filter": settings.filter,
            "ack_deadline_seconds": settings.ack_deadline,
            "message_retention_duration": Duration(seconds=settings.retention),
            # Without a time to live: by default an idle subscription goes, with its backlog, after 31 days.
            "expiration_policy": {},
            "retry_policy": {
                "minimum_backoff": Duration(seconds=settings.backoff_min),
                "maximum_backoff": Duration(seconds=settings.backoff_max),
            },
        }
        if settings.dead_letter_topic is not None:
            request["dead_letter_policy"] = {
                "dead_letter_topic": self._topic(settings.dead_letter_topic),
                "max_delivery_attempts": settings.delivery_attempts,
            }
        return request

    def _created(self, call: str, method: Callable[..., Any], *, request: dict[str, Any]) -> bool:
        with contextlib.suppress(google_errors.AlreadyExists):
            self._call(call, method, request)
            return True
        return False

    def _found(self, call: str, method: Callable[..., T], *, request: dict[str, Any]) -> T | None:
        with contextlib.suppress(google_errors.NotFound):
            return self._call(call, method, request)
        return None

    def _call(self, call: str, method: Callable[..., T], request: dict[str, Any]) -> T:
        try:
            return method(request=request, timeout=_CALL_SECONDS, retry=_RETRY)
        except (google_errors.AlreadyExists, google_errors.NotFound):
            raise
        except google_errors.GoogleAPIError as error:
            raise translate_google(error, call) from error


def _settings(found: Any) -> SubscriptionSettings:
    dead = found.dead_letter_policy
    return SubscriptionSettings(
        topic=found.topic.rsplit("/", 1)[-1],
        filter=found.filter,
        ack_deadline=found.ack_deadline_seconds,
        retention=found.message_retention_duration.seconds,
        dead_letter_topic=dead.dead_letter_topic.rsplit("/", 1)[-1] or None,
        delivery_attempts=dead.max_delivery_attempts or DELIVERY_ATTEMPTS_MAX,
        backoff_min=found.retry_policy.minimum_backoff.seconds,
        backoff_max=found.retry_policy.maximum_backoff.seconds,
    )

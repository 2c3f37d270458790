"""How Google Cloud is set up, as far as it reveals that: read only, for `firefleet check`.

What an emulator has no notion of (indexes, TTL, permissions) raises `CannotTell`; so does a question these
credentials may not ask.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import google.auth
from google.api_core import exceptions as google_errors
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud.firestore_admin_v1 import FirestoreAdminClient
from google.cloud.firestore_v1.services.firestore import FirestoreClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from requests.exceptions import RequestException

from replication.adapters.firestore import open_database
from replication.adapters.pubsub_admin import PubsubAdmin
from replication.adapters.rpc import EMULATOR_METADATA, connect, translate_google
from replication.errors import CannotTell, FirefleetError, NotOnEmulators, Transient
from replication.fleet.cloud import FoundSubscription
from replication.fleet.model import Fleet, Replica

T = TypeVar("T")

_CALL_SECONDS = 15.0
_READ_SECONDS = 10.0
_COLLECTIONS_MAX = 300
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_PROJECTS = "https://cloudresourcemanager.googleapis.com/v1/projects"


class CloudInspection:
    """Asks Pub/Sub, Firestore and IAM about one fleet. Every call is bounded; raises `FirefleetError`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._pubsub_emulator = fleet.pubsub_emulator_host
        self._admin = PubsubAdmin(fleet.project, emulator_host=fleet.pubsub_emulator_host)
        self._channel = connect(PublisherGrpcTransport, emulator_host=fleet.pubsub_emulator_host)
        self._subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))

    def has_topic(self, topic: str) -> bool:
        """Whether a topic of the fleet's project exists.

        One try: where Pub/Sub cannot be reached, this says so at once, before anything waits for it.
        """
        try:
            return self._admin.reach(topic)
        except Transient as error:
            if isinstance(error.__cause__, google_errors.PermissionDenied):
                raise _translated(error.__cause__, f"looking up topic {topic}") from error
            raise

    def subscription(self, name: str) -> FoundSubscription | None:
        """A subscription of the fleet's project; None if no subscription has that name."""
        settings = self._admin.describe(name)
        if settings is None:
            return None
        path = SubscriberClient.subscription_path(self._fleet.project, name)
        found = _answer(
            f"looking up subscription {path}",
            lambda: self._subscriber.get_subscription(
                request={"subscription": path}, retry=None, timeout=_CALL_SECONDS
            ),
        )
        return FoundSubscription(settings=settings, ordered=found.enable_message_ordering)

    def read(self, replica: Replica, path: str) -> None:
        """Read one document, to see that the replica's database can be reached."""
        database = _answer(f"opening replica {replica.id}", lambda: open_database(replica))
        try:
            database.read([path], timeout=_READ_SECONDS)
        finally:
            database.close()

    def location(self, replica: Replica) -> str:
        """Where Google says that a database is."""
        admin = self._firestore_admin(replica)
        name = _database(replica)
        found = _answer(
            f"looking up {name}",
            lambda: admin.get_database(request={"name": name}, retry=None, timeout=_CALL_SECONDS),
        )
        return str(found.location_id)

    def collections(self, replica: Replica) -> list[str]:
        """The ids of a database's top-level collections, the first few hundred."""
        emulator = replica.emulator_host
        channel = _answer("opening Firestore", lambda: connect(FirestoreGrpcTransport, emulator_host=emulator))
        try:
            client = FirestoreClient(transport=FirestoreGrpcTransport(channel=channel))
            request = {"parent": f"{_database(replica)}/documents", "page_size": _COLLECTIONS_MAX}
            metadata = EMULATOR_METADATA if emulator else ()
            page = _answer(
                f"listing the collections of replica {replica.id}",
                lambda: client.list_collection_ids(
                    request=request, retry=None, timeout=_CALL_SECONDS, metadata=metadata
                ),
            )
            return list(next(iter(page.pages)).collection_ids)
        finally:
            channel.close()

    def indexed(self, replica: Replica, group: str, name: str) -> bool:
        """Whether single-field indexes are kept for a field of a collection group."""
        return bool(self._field(replica, group, name).index_config.indexes)

    def has_ttl(self, replica: Replica, group: str, name: str) -> bool:
        """Whether documents of a collection group are deleted at the time in a field."""
        ttl = self._field(replica, group, name).ttl_config
        return str(ttl.state.name) in ("ACTIVE", "CREATING")

    def lacking_in_project(self, project: str, permissions: Sequence[str]) -> list[str]:
        """Which of these permissions in a project this process does not have."""
        if any(each.emulator_host for each in self._fleet.replicas.values() if each.project == project):
            raise NotOnEmulators("an emulator has no permissions")
        return _answer(f"asking for permissions in {project}", lambda: _lacking(project, permissions))

    def lacking_on_topic(self, topic: str, permissions: Sequence[str]) -> list[str]:
        """Which of these permissions on a topic this process does not have."""
        return self._lacking_on(PublisherClient.topic_path(self._fleet.project, topic), permissions)

    def lacking_on_subscription(self, name: str, permissions: Sequence[str]) -> list[str]:
        """Which of these permissions on a subscription this process does not have."""
        return self._lacking_on(SubscriberClient.subscription_path(self._fleet.project, name), permissions)

    def close(self) -> None:
        """Release connections; no call may follow."""
        self._admin.close()
        self._channel.close()

    def _lacking_on(self, resource: str, permissions: Sequence[str]) -> list[str]:
        if self._pubsub_emulator:
            raise NotOnEmulators("an emulator has no permissions")
        granted = _answer(
            f"asking for permissions on {resource}",
            lambda: self._subscriber.test_iam_permissions(
                request={"resource": resource, "permissions": list(permissions)},
                retry=None,
                timeout=_CALL_SECONDS,
            ),
        )
        return [each for each in permissions if each not in granted.permissions]

    def _field(self, replica: Replica, group: str, name: str) -> Any:
        admin = self._firestore_admin(replica)
        path = f"{_database(replica)}/collectionGroups/{group}/fields/{name}"
        return _answer(
            f"looking up {path}",
            lambda: admin.get_field(request={"name": path}, retry=None, timeout=_CALL_SECONDS),
        )

    def _firestore_admin(self, replica: Replica) -> FirestoreAdminClient:
        if replica.emulator_host:
            raise NotOnEmulators("an emulator has no indexes, TTL or location")
        return _answer("opening Firestore's administration", FirestoreAdminClient)


def _database(replica: Replica) -> str:
    return f"projects/{replica.project}/databases/{replica.database}"


def _answer(call: str, ask: Callable[[], T]) -> T:
    """What Google answers; its refusal to say is `CannotTell`."""
    try:
        return ask()
    except google_errors.GoogleAPIError as error:
        raise _translated(error, call) from error
    except GoogleAuthError as error:
        raise CannotTell(f"{call}: no credentials; run `gcloud auth application-default login`") from error


def _translated(error: google_errors.GoogleAPIError, call: str) -> FirefleetError:
    if isinstance(error, google_errors.PermissionDenied):
        return CannotTell(f"{call}: these credentials may not ask ({error.message})")
    return translate_google(error, call)


def _lacking(project: str, permissions: Sequence[str]) -> list[str]:
    # Firestore itself has no permissions to test: its roles are granted on the project.
    credentials, _ = google.auth.default(scopes=[_SCOPE])
    try:
        with AuthorizedSession(credentials) as session:  # type: ignore[no-untyped-call]
            answer = session.post(
                f"{_PROJECTS}/{project}:testIamPermissions",
                json={"permissions": list(permissions)},
                timeout=_CALL_SECONDS,
            )
    except RequestException as error:
        raise Transient(f"asking for permissions in {project}: {error}") from error
    if answer.status_code != 200:
        raise CannotTell(f"asking for permissions in {project}: {answer.status_code} {answer.reason}")
    granted = answer.json().get("permissions", [])
    return [each for each in permissions if each not in granted]

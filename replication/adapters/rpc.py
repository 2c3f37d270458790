"""What the gRPC adapters share: how a channel is opened, and what each status means to us.

Calls go through plain stubs (a method's path, a protobuf class's serialiser) instead of the generated clients:
those wrap every message in proto-plus, ten times the work, and retry on their own, although only the caller
knows what a second try means. Channels, credentials and scopes are still the generated clients' own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.experimental
from google.api_core import exceptions as google_errors
from google.api_core.gapic_v1 import routing_header
from google.auth.exceptions import DefaultCredentialsError

from replication.errors import ConditionFailed, ConfigError, FirefleetError, Refused, Transient

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    # The service's own limits decide; gRPC's default of 4 MiB for answers is below one batch of documents.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Google's own clients ping at 30 s. An unanswered ping closes a half-open connection, which would
    # otherwise swallow one deadline after another.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's default grows to 2 minutes: a replica would stay away that long after its region is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A streamed answer is read by the thread that waits for it. By default each of its messages, a document,
    # goes through a thread of the library's own: twice the work of a read.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
    # A write that is retried below us could report the precondition its own first try broke.
    ("grpc.enable_retries", 0),
    ("grpc.primary_user_agent", "firefleet"),
)

EMULATOR_METADATA = (("authorization", "Bearer owner"),)
"""The emulators' administrator; without it the Firestore emulator applies security rules."""


def open_channel(emulator_host: str) -> grpc.Channel:
    """A channel to an emulator at `host:port`: no TLS, no credentials."""
    return grpc.insecure_channel(emulator_host, options=CHANNEL_OPTIONS)


def connect(transport: Any, *, emulator_host: str | None, endpoint: str | None = None) -> grpc.Channel:
    """A channel to an emulator, else to Google with application default credentials.

    `transport` is the gRPC transport class of the service's generated client; `endpoint` replaces its host.
    Does not connect yet. Raises `ConfigError` where there are no credentials.
    """
    if emulator_host:
        return open_channel(emulator_host)
    host = endpoint or transport.DEFAULT_HOST
    try:
        channel: grpc.Channel = transport.create_channel(host, options=CHANNEL_OPTIONS)
    except DefaultCredentialsError as error:
        raise ConfigError(
            f"No credentials for {host}: {error} Run as a service account, or run `gcloud auth "
            "application-default login`; for emulators, write `emulator_host:` at each replica and "
            "`pubsub_emulator_host:` into the configuration."
        ) from error
    return channel


def routing(key: str, name: str) -> tuple[str, str]:
    """The header by which Google routes a call, from the request's field that names the resource."""
    header: tuple[str, str] = routing_header.to_grpc_metadata(((key, name),))  # type: ignore[no-untyped-call]
    return header


Make = Callable[[str], FirefleetError]
Meanings = Mapping[grpc.StatusCode, Make]

MEANINGS: Meanings = {
    grpc.StatusCode.UNAVAILABLE: Transient,
    grpc.StatusCode.DEADLINE_EXCEEDED: Transient,
    grpc.StatusCode.ABORTED: Transient,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Transient,
    grpc.StatusCode.INTERNAL: Transient,
    grpc.StatusCode.UNKNOWN: Transient,
    grpc.StatusCode.CANCELLED: Transient,
    # The operator can fix these while the messages wait; the text says how.
    grpc.StatusCode.UNAUTHENTICATED: Transient,
    grpc.StatusCode.PERMISSION_DENIED: Transient,
    grpc.StatusCode.NOT_FOUND: Transient,
    grpc.StatusCode.FAILED_PRECONDITION: Transient,
}
"""Whatever is not named is `Refused`: the same request would always fail again."""

PRECONDITIONS: Meanings = {
    **MEANINGS,
    grpc.StatusCode.FAILED_PRECONDITION: ConditionFailed,
    grpc.StatusCode.ALREADY_EXISTS: ConditionFailed,
    grpc.StatusCode.NOT_FOUND: ConditionFailed,
}
"""The same for a call whose writes carry preconditions and succeed or fail together."""

_REMEDIES = {
    grpc.StatusCode.UNAUTHENTICATED: (
        "; give this process credentials: a service account, or `gcloud auth application-default login`"
    ),
    grpc.StatusCode.PERMISSION_DENIED: (
        "; grant this process' service account the role that `firefleet check` names"
    ),
    grpc.StatusCode.NOT_FOUND: "; `firefleet check` says what is missing and how to create it",
}

# RESOURCE_EXHAUSTED is a quota (wait) or a message over a size limit (never). gRPC has no other sign than its
# text: "Received message larger than max" (C core), "gRPC message exceeds maximum size" (Java: the emulators).
_TOO_LARGE = ("message larger than max", "exceeds maximum size")


def status(error: grpc.RpcError) -> grpc.StatusCode:
    """The status a failed call ended with (a raised `RpcError` is its call too, which its type hides)."""
    code: grpc.StatusCode = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    return code


def translate(error: grpc.RpcError, call: str, *, meanings: Meanings = MEANINGS) -> FirefleetError:
    """The error to raise for a failed call; `call` says what was attempted and where."""
    code = status(error)
    text = (error.details() if isinstance(error, grpc.Call) else str(error)) or ""
    make = meanings.get(code, Refused)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and any(sign in text for sign in _TOO_LARGE):
        make = Refused
    return failure(make, code, call=call, text=text)


def failure(make: Make, code: grpc.StatusCode, *, call: str, text: str) -> FirefleetError:
    """`make`'s error, with the remedy for its status where an operator can fix it."""
    remedy = _REMEDIES.get(code, "") if make is Transient else ""
    return make(f"{call}: {code.name}: {text}{remedy}")


def translate_google(error: google_errors.GoogleAPIError, call: str) -> FirefleetError:
    """`translate` for a failure of Google's official clients."""
    if isinstance(error, google_errors.GoogleAPICallError) and error.grpc_status_code is not None:
        code = error.grpc_status_code
        return failure(MEANINGS.get(code, Refused), code, call=call, text=str(error.message))
    # RetryError: it was tried until the time was up.
    return Transient(f"{call}: {error}")

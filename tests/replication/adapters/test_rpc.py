"""Each status of a failed call becomes the error that decides rightly what happens to the messages."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from replication.adapters.firestore import FirestoreDatabase, open_database
from replication.documents.wire import (
    BatchGetDocumentsRequest,
    BatchGetDocumentsResponse,
    BatchWriteRequest,
    BatchWriteResponse,
    CommitRequest,
    CommitResponse,
    Write,
)
from replication.errors import ConditionFailed, ConfigError, FirefleetError, Refused, Transient
from replication.fleet.model import Replica
from tests.support.polling import PATIENCE_S

Code = grpc.StatusCode


class Server:
    """Answers Firestore's three calls with a status, or with `answer` if there is none."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.text = "the server's own text"
        self.answer: Any = None
        self.calls: list[tuple[Any, dict[str, str]]] = []

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.calls.append((request, {str(key): str(value) for key, value in context.invocation_metadata()}))
        if self.code is not None:
            context.abort(self.code, self.text)
        return self.answer

    def stream(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from self(request, context)


def handlers(server: Server) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    def unary(request: Any, response: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        return grpc.unary_unary_rpc_method_handler(
            server, request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )

    return {
        "BatchGetDocuments": grpc.unary_stream_rpc_method_handler(
            server.stream,
            request_deserializer=BatchGetDocumentsRequest.FromString,
            response_serializer=BatchGetDocumentsResponse.SerializeToString,
        ),
        "BatchWrite": unary(BatchWriteRequest, BatchWriteResponse),
        "Commit": unary(CommitRequest, CommitResponse),
    }


@contextmanager
def serving() -> Iterator[tuple[Server, FirestoreDatabase]]:
    answers = Server()
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        service = grpc.method_handlers_generic_handler("google.firestore.v1.Firestore", handlers(answers))
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        replica = Replica(
            id="eu",
            project="my-project",
            database="app-eu",
            location="europe-west1",
            emulator_host=f"127.0.0.1:{port}",
        )
        try:
            with closing(open_database(replica)) as database:
                yield answers, database
        finally:
            server.stop(grace=None).wait()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Server, FirestoreDatabase]]:
    with serving() as both:
        yield both


CALLS: dict[str, Callable[[FirestoreDatabase], object]] = {
    "read": lambda database: database.read(["orders/1"], timeout=PATIENCE_S),
    "batch_write": lambda database: database.batch_write([Write()], timeout=PATIENCE_S),
    "commit": lambda database: database.commit([Write()], timeout=PATIENCE_S),
}
EVERYWHERE: dict[grpc.StatusCode, type[FirefleetError]] = {
    Code.UNAVAILABLE: Transient,
    Code.DEADLINE_EXCEEDED: Transient,
    Code.ABORTED: Transient,
    Code.RESOURCE_EXHAUSTED: Transient,
    Code.INTERNAL: Transient,
    Code.UNKNOWN: Transient,
    Code.CANCELLED: Transient,
    Code.UNAUTHENTICATED: Transient,
    Code.PERMISSION_DENIED: Transient,
    Code.INVALID_ARGUMENT: Refused,
    Code.OUT_OF_RANGE: Refused,
    Code.UNIMPLEMENTED: Refused,
    Code.DATA_LOSS: Refused,
}
PRECONDITIONS: dict[grpc.StatusCode, type[FirefleetError]] = {
    Code.FAILED_PRECONDITION: Transient,
    Code.NOT_FOUND: Transient,
    Code.ALREADY_EXISTS: Refused,
}
EXPECTED = [
    *((call, code, error) for call in CALLS for code, error in EVERYWHERE.items()),
    *((call, code, error) for call in ("read", "batch_write") for code, error in PRECONDITIONS.items()),
    *(("commit", code, ConditionFailed) for code in PRECONDITIONS),
]


@pytest.mark.parametrize(("call", "code", "error"), EXPECTED)
def test_a_status_becomes_the_error_that_decides_what_follows(
    served: tuple[Server, FirestoreDatabase], call: str, code: grpc.StatusCode, error: type[FirefleetError]
) -> None:
    server, database = served
    server.code = code
    server.calls.clear()
    text = rf"replica eu \(projects/my-project/databases/app-eu\): {code.name}: the server's own text"
    with pytest.raises(error, match=text):
        CALLS[call](database)
    assert len(server.calls) == 1, "only the worker's own loop may try again"


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (Code.PERMISSION_DENIED, "grant this process' service account the role"),
        (Code.UNAUTHENTICATED, "gcloud auth application-default login"),
        (Code.NOT_FOUND, "firefleet check"),
    ],
)
def test_what_an_operator_can_fix_comes_with_the_remedy(
    served: tuple[Server, FirestoreDatabase], code: grpc.StatusCode, remedy: str
) -> None:
    server, database = served
    server.code = code
    with pytest.raises(Transient, match=remedy):
        database.read(["orders/1"], timeout=PATIENCE_S)


@pytest.mark.parametrize(
    "text",
    ["Received message larger than max (11 vs. 10)", "gRPC message exceeds maximum size 4194304: 5000370"],
)
def test_a_request_over_a_size_limit_is_refused_unlike_a_quota(text: str) -> None:
    with serving() as (server, database):
        server.code, server.text = Code.RESOURCE_EXHAUSTED, text
        with pytest.raises(Refused):
            database.batch_write([Write()], timeout=PATIENCE_S)
        server.text = "Quota exceeded."
        with pytest.raises(Transient):
            database.batch_write([Write()], timeout=PATIENCE_S)


def test_every_call_names_its_database_for_routing(served: tuple[Server, FirestoreDatabase]) -> None:
    server, database = served
    server.code = Code.ABORTED
    server.calls.clear()
    for call in CALLS.values():
        with pytest.raises(Transient):
            call(database)
    for _, metadata in server.calls:
        assert metadata["x-goog-request-params"] == "database=projects/my-project/databases/app-eu"
        assert metadata["google-cloud-resource-prefix"] == "projects/my-project/databases/app-eu"
    assert len(server.calls) == 3


def test_answers_in_any_order_come_back_in_the_order_asked_for() -> None:
    with serving() as (server, database):
        found = BatchGetDocumentsResponse(
            found={"name": f"{database.prefix}c/1", "update_time": {"seconds": 2}}
        )
        missing = BatchGetDocumentsResponse(missing=f"{database.prefix}c/2", read_time={"nanos": 3_000})
        server.answer = [missing, found]
        first, second = database.read(["c/1", "c/2"], timeout=PATIENCE_S)
        assert (first.path, first.update_time) == ("c/1", 2_000_000)
        assert (second.path, second.document, second.read_time) == ("c/2", None, 3)


def test_an_answer_that_lacks_a_document_is_transient_not_a_missing_document() -> None:
    """Taken for missing, a document that exists would be written over as if it had been deleted."""
    with serving() as (server, database):
        server.answer = [BatchGetDocumentsResponse(missing=f"{database.prefix}c/2")]
        with pytest.raises(Transient, match="no answer for 1, the first c/1"):
            database.read(["c/1", "c/2"], timeout=PATIENCE_S)


def test_an_answer_with_fewer_outcomes_than_writes_is_transient() -> None:
    with serving() as (server, database):
        server.answer = BatchWriteResponse(status=[{}], write_results=[{}])
        with pytest.raises(Transient, match="1 outcomes of 2 writes"):
            database.batch_write([Write(), Write()], timeout=PATIENCE_S)


def test_each_write_has_its_own_outcome_and_times_are_whole_microseconds() -> None:
    with serving() as (server, database):
        server.answer = BatchWriteResponse(
            status=[{}, {"code": 9, "message": "stale"}],
            write_results=[{"update_time": {"seconds": 1, "nanos": 999_999_999}}, {}],
        )
        assert database.batch_write([Write(), Write()], timeout=PATIENCE_S) == [
            (0, 1_999_999, ""),
            (9, 0, "stale"),
        ]
        server.answer = CommitResponse(commit_time={"seconds": 5, "nanos": 1_000})
        assert database.commit([Write()], timeout=PATIENCE_S) == 5_000_001


GOOGLE = Replica(id="eu", project="my-project", database="app-eu", location="europe-west1")


def test_without_credentials_opening_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(ConfigError, match=r"firestore\.googleapis\.com: .*missing\.json.*gcloud auth"):
        open_database(GOOGLE)


def test_credentials_go_to_the_endpoint_named_and_only_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not speak TLS is no Google: the call fails before anything is sent to it."""
    key = {"type": "authorized_user", "client_id": "id", "client_secret": "s", "refresh_token": "t"}
    (tmp_path / "key.json").write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        endpoint = f"127.0.0.1:{server.getsockname()[1]}"

        def first_bytes() -> bytes:
            connection, _ = server.accept()
            with connection:
                return connection.recv(3)

        received = pool.submit(first_bytes)
        with closing(open_database(GOOGLE, endpoint=endpoint)) as database, pytest.raises(Transient):
            database.read(["orders/1"], timeout=5)
        assert received.result(PATIENCE_S)[:1] == b"\x16", "a TLS handshake record"

"""Firestore as a `Database`: three calls of its API on plain gRPC stubs.

BatchGetDocuments reads, BatchWrite writes independently, Commit writes atomically
(https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1). The reasons for plain stubs are in
`replication.adapters.rpc`. Nothing is retried here.
"""

from collections.abc import Sequence
from typing import Any

import grpc
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport

from replication.adapters.rpc import (
    EMULATOR_METADATA,
    MEANINGS,
    PRECONDITIONS,
    Meanings,
    connect,
    routing,
    translate,
)
from replication.documents.wire import (
    BatchGetDocumentsRequest,
    BatchGetDocumentsResponse,
    BatchWriteRequest,
    BatchWriteResponse,
    CommitRequest,
    CommitResponse,
    micros,
)
from replication.errors import Transient
from replication.fleet.model import Replica
from replication.ports import Database, Found, Written

_SERVICE = "/google.firestore.v1.Firestore/"

_WRITES_TAG = b"\x12"
"""Field 2, length-delimited: `writes` of BatchWriteRequest and of CommitRequest."""


class FirestoreDatabase(Database):
    """One replica's database over one channel, which it owns; any number of threads may share it."""

    def __init__(
        self,
        channel: grpc.Channel,
        replica: Replica,
        *,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        name = f"projects/{replica.project}/databases/{replica.database}"
        self.prefix = replica.prefix
        self._name = name
        self._where = f"replica {replica.id} ({name})"
        self._channel = channel
        # Both name the database, as the official client does: the first routes the call to it, the second
        # predates routing headers and is still sent.
        self._metadata = (
            routing("database", name),
            ("google-cloud-resource-prefix", name),
            *metadata,
        )
        self._batch_get = channel.unary_stream(
            f"{_SERVICE}BatchGetDocuments",
            request_serializer=BatchGetDocumentsRequest.SerializeToString,
            response_deserializer=BatchGetDocumentsResponse.FromString,
        )
        self._batch_write = channel.unary_unary(
            f"{_SERVICE}BatchWrite",
            request_serializer=None,
            response_deserializer=BatchWriteResponse.FromString,
        )
        self._commit = channel.unary_unary(
            f"{_SERVICE}Commit",
            request_serializer=None,
            response_deserializer=CommitResponse.FromString,
        )

    def read(self, paths: Sequence[str], *, timeout: float) -> list[Found]:
        """See `Database.read`."""
        if not paths:
            return []
        request = BatchGetDocumentsRequest(
            database=self._name, documents=[self.prefix + path for path in paths]
        )
        found: dict[str, Found] = {}
        try:
            for answer in self._batch_get(request, timeout=timeout, metadata=self._metadata):
                one = self._found(answer)
                found[one.path] = one
        except grpc.RpcError as error:
            raise self._failed(error, f"reading {_documents(len(paths))} from") from error
        if lost := [path for path in paths if path not in found]:
            raise Transient(f"reading from {self._where}: no answer for {len(lost)}, the first {lost[0]}")
        return [found[path] for path in paths]

    def batch_write(self, writes: Sequence[Any], *, timeout: float) -> list[Written]:
        """See `Database.batch_write`."""
        if not writes:
            return []
        request = self._request(BatchWriteRequest, writes)
        try:
            answer = self._batch_write(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failed(error, f"writing {_documents(len(writes))} to") from error
        if len(answer.status) != len(writes):
            raise Transient(f"writing to {self._where}: {len(answer.status)} outcomes of {len(writes)} writes")
        return [
            Written(one.code, 0 if one.code else micros(result.update_time), one.message)
            for one, result in zip(answer.status, answer.write_results, strict=True)
        ]

    def commit(self, writes: Sequence[Any], *, timeout: float) -> int:
        """See `Database.commit`."""
        request = self._request(CommitRequest, writes)
        try:
            answer = self._commit(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            call = f"committing {len(writes)} writes to"
            raise self._failed(error, call, meanings=PRECONDITIONS) from error
        return micros(answer.commit_time)

    def close(self) -> None:
        """See `Database.close`."""
        self._channel.close()

    def _request(self, kind: Any, writes: Sequence[Any]) -> bytes:
        """A serialised request of these writes.

        Put together from their own serialisations, because `kind(writes=writes)` copies every write first,
        which takes longer than serialising it.
        """
        parts = [kind(database=self._name).SerializeToString()]
        for write in writes:
            body = write.SerializeToString()
            parts += (_WRITES_TAG, _varint(len(body)), body)
        return b"".join(parts)

    def _found(self, answer: Any) -> Found:
        read_time = micros(answer.read_time)
        if answer.HasField("found"):
            document = answer.found
            path = document.name.removeprefix(self.prefix)
            return Found(path, document, micros(document.update_time), read_time)
        return Found(answer.missing.removeprefix(self.prefix), None, 0, read_time)

    def _failed(self, error: grpc.RpcError, call: str, *, meanings: Meanings = MEANINGS) -> Exception:
        return translate(error, f"{call} {self._where}", meanings=meanings)


def _varint(value: int) -> bytes:
    """A length as protobuf encodes it (https://protobuf.dev/programming-guides/encoding/#varints)."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def open_database(replica: Replica, *, endpoint: str | None = None) -> FirestoreDatabase:
    """Open a replica's database: on its emulator, else at Google with application default credentials.

    `endpoint` replaces `firestore.googleapis.com`, which may route through another region;
    `firestore.{location}.rep.googleapis.com` keeps the traffic in one. Connects with the first call.
    """
    channel = connect(FirestoreGrpcTransport, emulator_host=replica.emulator_host, endpoint=endpoint)
    return FirestoreDatabase(channel, replica, metadata=EMULATOR_METADATA if replica.emulator_host else ())


def _documents(number: int) -> str:
    return "1 document" if number == 1 else f"{number} documents"

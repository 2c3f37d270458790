"""List a collection's documents in the order of their names, by RunQuery on a plain gRPC stub."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport
from google.cloud.firestore_v1.types import firestore, query

from replication.adapters.rpc import EMULATOR_METADATA, connect, routing, translate
from replication.errors import Transient
from replication.fleet.model import Replica

_RunQueryRequest: Any = firestore.RunQueryRequest.pb()
_RunQueryResponse: Any = firestore.RunQueryResponse.pb()
_StructuredQuery: Any = query.StructuredQuery.pb()

_QUERY_SECONDS = 60.0
_TRIES_MAX = 5
_PAUSE_SECONDS = 0.25


class FirestoreListing:
    """Lists documents of one replica, over a channel it owns."""

    def __init__(self, replica: Replica, *, endpoint: str | None = None) -> None:
        name = f"projects/{replica.project}/databases/{replica.database}"
        self._where = f"replica {replica.id} ({name})"
        self._parent = f"{name}/documents"
        self._metadata = (
            routing("parent", self._parent),
            ("google-cloud-resource-prefix", name),
            *(EMULATOR_METADATA if replica.emulator_host else ()),
        )
        self._channel = connect(FirestoreGrpcTransport, emulator_host=replica.emulator_host, endpoint=endpoint)
        self._query = self._channel.unary_stream(
            "/google.firestore.v1.Firestore/RunQuery",
            request_serializer=_RunQueryRequest.SerializeToString,
            response_deserializer=_RunQueryResponse.FromString,
        )

    def documents(self, collection: str, *, equal: Mapping[str, str]) -> Iterator[Any]:
        """A top-level collection's documents whose fields equal these texts, by name.

        Not one moment's state: a document created meanwhile is listed if its name comes later. A query that
        breaks off (Firestore ends one after 60 s) goes on where it was; raises `Transient` when several in a
        row bring nothing.
        """
        after, failures = "", 0
        while True:
            try:
                for document in self._from(collection, equal, after):
                    after, failures = document.name, 0
                    yield document
            except Transient:
                failures += 1
                if failures == _TRIES_MAX:
                    raise
                time.sleep(_PAUSE_SECONDS * 2**failures)
            else:
                return

    def close(self) -> None:
        """Release the connection; no call may follow."""
        self._channel.close()

    def _from(self, collection: str, equal: Mapping[str, str], after: str) -> Iterator[Any]:
        request = _RunQueryRequest(parent=self._parent, structured_query=_structured(collection, equal, after))
        try:
            for answer in self._query(request, timeout=_QUERY_SECONDS, metadata=self._metadata):
                if answer.HasField("document"):
                    yield answer.document
        except grpc.RpcError as error:
            raise translate(error, f"listing {collection} of {self._where}") from error


def _structured(collection: str, equal: Mapping[str, str], after: str) -> Any:
    asked = _StructuredQuery()
    asked.from_.add(collection_id=collection)
    for name, text in equal.items():
        one = asked.where.composite_filter.filters.add().field_filter
        one.field.field_path = name
        one.op = one.EQUAL
        one.value.string_value = text
    if equal:
        asked.where.composite_filter.op = asked.where.composite_filter.AND
    asked.order_by.add(direction=_StructuredQuery.ASCENDING).field.field_path = "__name__"
    if after:
        asked.start_at.values.add(reference_value=after)
        asked.start_at.before = False
    return asked

"""What the replicas hold, read exactly: protobuf values, never Python's, which lose 1 against 1.0 and NaN.

Read through the official client's own connection, one query for all documents of a database.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from google.cloud import firestore
from google.cloud.firestore_v1.types import StructuredQuery

from replication.documents.wire import Document, micros
from tests.support.polling import PATIENCE_S, eventually
from workers.local.fleet import LocalFleet, TopicReader

METADATA = "_repl"


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as one replica holds it: its fields without the metadata, as bytes that are equal only where
    every value is equal in type and content. References into the replica's own database are relative there.
    Times are in microseconds.
    """

    body: bytes
    create_time: int
    update_time: int

    @property
    def fields(self) -> Mapping[str, Any]:
        """The protobuf values by name."""
        fields: Mapping[str, Any] = Document.FromString(self.body).fields
        return fields


Holdings = Mapping[str, Stored]
"""By relative path."""


def everything(client: firestore.Client, *, below: str = "") -> dict[str, Stored]:
    """All documents of a database, this system's own included, whose paths begin with `below`."""
    prefix = f"{client._database_string}/documents/"
    query = StructuredQuery(from_=[StructuredQuery.CollectionSelector(all_descendants=True)])
    if below:
        query.where = _between(prefix, below.partition("/")[0])
    answers = client._firestore_api.run_query(
        request={"parent": prefix.rstrip("/"), "structured_query": query}, metadata=client._rpc_metadata
    )
    documents = [type(answer).pb(answer).document for answer in answers]
    held = {found.name.removeprefix(prefix): take(found, prefix=prefix) for found in documents if found.name}
    return {path: stored for path, stored in held.items() if path.startswith(below)}


def _between(prefix: str, collection: str) -> StructuredQuery.Filter:
    """Names in the collections that begin with `collection`, and below them: from the least one to the last."""
    return StructuredQuery.Filter(
        composite_filter=StructuredQuery.CompositeFilter(
            op=StructuredQuery.CompositeFilter.Operator.AND,
            filters=[
                _named(StructuredQuery.FieldFilter.Operator.GREATER_THAN_OR_EQUAL, f"{prefix}{collection}/\0"),
                _named(StructuredQuery.FieldFilter.Operator.LESS_THAN, f"{prefix}{collection}\uffff/\0"),
            ],
        )
    )


def _named(operator: Any, name: str) -> StructuredQuery.Filter:
    return StructuredQuery.Filter(
        field_filter=StructuredQuery.FieldFilter(
            field=StructuredQuery.FieldReference(field_path="__name__"),
            op=operator,
            value={"reference_value": name},
        )
    )


def take(document: Any, *, prefix: str) -> Stored:
    """One document of the database whose names begin with `prefix`."""
    plain = Document(fields=document.fields)
    plain.fields.pop(METADATA, None)
    if prefix.encode() in plain.SerializeToString():
        _make_relative(plain.fields.values(), prefix)
    body = plain.SerializeToString(deterministic=True)
    return Stored(body, micros(document.create_time), micros(document.update_time))


def _make_relative(values: Iterable[Any], prefix: str) -> None:
    for value in values:
        match value.WhichOneof("value_type"):
            case "reference_value":
                value.reference_value = value.reference_value.removeprefix(prefix)
            case "map_value":
                _make_relative(value.map_value.fields.values(), prefix)
            case "array_value":
                _make_relative(value.array_value.values, prefix)


def application(holdings: Holdings) -> dict[str, bytes]:
    """What the application wrote: the bodies, without this system's documents."""
    return {path: stored.body for path, stored in holdings.items() if not path.startswith("_repl_")}


class Replicas:
    """All replicas of a running fleet, by id, seen with the official client."""

    def __init__(self, fleet: LocalFleet, *, only: Iterable[str] | None = None) -> None:
        self.fleet = fleet
        self.clients = {replica: fleet.client(replica) for replica in only or fleet.fleet.replicas}

    @cached_property
    def topic(self) -> TopicReader:
        """The topic, read from when this was first asked for."""
        return self.fleet.read_topic()

    def everything(self, *, below: str = "") -> dict[str, dict[str, Stored]]:
        """All documents of all replicas whose paths begin with `below`, read side by side."""
        with ThreadPoolExecutor(len(self.clients)) as threads:
            found = threads.map(partial(everything, below=below), self.clients.values())
            return dict(zip(self.clients, found, strict=True))

    def contents(self, *, below: str = "") -> dict[str, dict[str, bytes]]:
        """The application's documents at each replica whose paths begin with `below`."""
        return {replica: application(found) for replica, found in self.everything(below=below).items()}

    def differences(self, *, below: str = "") -> dict[str, dict[str, bytes | None]]:
        """The application's documents that are not the same everywhere."""
        contents = self.contents(below=below)
        paths = sorted(set().union(*contents.values()))
        found = {path: {replica: held.get(path) for replica, held in contents.items()} for path in paths}
        return {path: bodies for path, bodies in found.items() if len(set(bodies.values())) > 1}

    def agree_on(self, paths: Iterable[str]) -> bool:
        """Whether these documents are the same everywhere: a few calls, where comparing all takes many."""
        held = []
        for client in self.clients.values():
            found = client.get_all([client.document(path) for path in paths])
            held.append({one.reference.path: one.get("write") if one.exists else None for one in found})
        return all(one == held[0] for one in held)

    def conflicts(self, *, kind: str = "conflict") -> set[str]:
        """The documents of which some replica has logged a conflict, or another `kind`."""
        return {
            stored.fields["path"].string_value
            for found in self.everything(below="_repl_conflicts/").values()
            for path, stored in found.items()
            if path.count("/") == 1 and stored.fields["kind"].string_value == kind
        }

    def equal(self, *, below: str = "", timeout: float = PATIENCE_S) -> dict[str, bytes]:
        """Wait until all replicas hold the same documents, and return them."""
        eventually(lambda: not self.differences(below=below), timeout, every=0.5)
        return next(iter(self.contents(below=below).values()))

    def at_rest(self, *, seconds: float = 5.0, timeout: float = PATIENCE_S) -> None:
        """Wait until for so many seconds no document of any replica and no message has moved."""
        still = _Still(seconds)
        eventually(
            lambda: still.now((self.everything(), len(self.topic.messages()))), timeout + seconds, every=0.5
        )


@dataclass(slots=True)
class _Still:
    """Whether a value has been the same for so many seconds."""

    seconds: float
    _value: object = None
    _since: float = 0.0

    def now(self, value: object) -> bool:
        if value != self._value:
            self._value, self._since = value, time.monotonic()
        return time.monotonic() - self._since >= self.seconds

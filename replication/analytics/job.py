"""What one analytics worker is to do: everything its decisions depend on, besides the messages."""

from dataclasses import dataclass

from replication.analytics.anonymise import Anonymiser
from replication.analytics.schema import Schema
from replication.configuration.analytics import Analytics


@dataclass(frozen=True, slots=True)
class Job:
    """A worker's replica, settings, schema, and the anonymiser of its warehouse's copies (None: no copies).

    `token` is unique to the worker, among all workers there ever were.
    """

    replica: str
    settings: Analytics
    schema: Schema
    anonymiser: Anonymiser | None
    token: str

"""The fleet: its replicas, and which documents are replicated between them, how.

Values only: `replication.configuration` reads them from a file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from conflict.policies import LastWriteWins
from conflict.resolve import OnDelete, Policy
from replication.documents.metadata import MetadataCodec
from replication.documents.wire import MICROS, database_prefix
from replication.errors import ConfigError
from replication.fleet.addressing import subscription_filter
from replication.fleet.fingerprint import fingerprint
from replication.fleet.paths import parse_pattern

METADATA_FIELD = "_repl"
PULL_THREADS = 4
PULL_MESSAGES = 500
DRIFT_LIMIT_US = 300 * MICROS
TOMBSTONE_RETENTION_US = 10 * 86_400 * MICROS
CONFLICT_RETENTION_US = 30 * 86_400 * MICROS


class Mode(StrEnum):
    """Which replicas' changes to a collection are replicated: all, the primary's, or none."""

    MULTI_PRIMARY = "multi-primary"
    SINGLE_PRIMARY = "single-primary"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One Firestore database. `emulator_host` is host:port where it is an emulator's.

    `prefix` is what its documents' full names begin with, up to and including the last slash.
    """

    id: str
    project: str
    database: str
    location: str
    emulator_host: str | None = None
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", database_prefix(self.project, self.database))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens to the documents that `match` matches. `lag_target` is in seconds."""

    match: str
    mode: Mode = Mode.MULTI_PRIMARY
    primary: str | None = None
    policy: Policy = field(default_factory=LastWriteWins)
    on_delete: OnDelete = OnDelete.LWW
    lag_target: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """How a worker pulls: threads, and messages a pull takes at most."""

    threads: int = PULL_THREADS
    max_messages: int = PULL_MESSAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The replicas and the rules between them. `…_us` are in microseconds.

    `dead_letter_topic` defaults to the topic's name with `-dead-letters`. `secret` keys the seal;
    `secret_file` is where it came from, as the file names it. `codec` reads and writes the versions in this
    fleet's documents.
    """

    project: str
    topic: str
    replicas: Mapping[str, Replica]
    rules: tuple[Rule, ...]
    dead_letter_topic: str = ""
    metadata_field: str = METADATA_FIELD
    secret: bytes | None = field(default=None, repr=False)
    secret_file: str | None = None
    drift_limit_us: int = DRIFT_LIMIT_US
    tombstone_retention_us: int = TOMBSTONE_RETENTION_US
    conflict_retention_us: int = CONFLICT_RETENTION_US
    pull: Pull = field(default_factory=Pull)
    expirations: Literal["local", "replicate"] = "local"
    pubsub_emulator_host: str | None = None
    codec: MetadataCodec = field(init=False, repr=False, compare=False)
    _matching: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _databases: Mapping[tuple[str, str], Replica] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # One regular expression for all rules, a group each: the first group that matches is the first rule.
        groups = "|".join(f"({parse_pattern(rule.match).regex})" for rule in self.rules)
        codec = MetadataCodec(
            field=self.metadata_field,
            secret=self.secret or b"",
            drift_limit_us=self.drift_limit_us,
            prefixes=tuple(replica.prefix for replica in self.replicas.values()),
        )
        databases = {(replica.project, replica.database): replica for replica in self.replicas.values()}
        object.__setattr__(self, "codec", codec)
        object.__setattr__(self, "_matching", re.compile(groups, re.DOTALL))
        object.__setattr__(self, "_databases", databases)
        if not self.dead_letter_topic:
            object.__setattr__(self, "dead_letter_topic", f"{self.topic}-dead-letters")

    def replica(self, replica_id: str) -> Replica:
        """The replica with an id; `ConfigError` names the known ones."""
        try:
            return self.replicas[replica_id]
        except KeyError:
            known = ", ".join(self.replicas)
            raise ConfigError(f"no replica '{replica_id}' in the config; choose one of {known}") from None

    def replica_of(self, project: str, database: str) -> Replica | None:
        """The replica that a database is; None if it does not belong to the fleet."""
        return self._databases.get((project, database))

    def rule_for(self, path: str) -> Rule:
        """The first rule that matches a document's relative path, such as `orders/1`."""
        found = self._matching.fullmatch(path)
        if found is None or found.lastindex is None:
            raise ConfigError(f"no rule matches {path}; end the rules with one for {{document=**}}")
        return self.rules[found.lastindex - 1]

    def subscription(self, replica_id: str) -> str:
        """The id of the subscription that brings a replica its changes."""
        return f"{self.topic}-{replica_id}"

    def subscription_filter(self, replica_id: str) -> str:
        """The filter of that subscription; see `replication.fleet.addressing`."""
        return subscription_filter(replica_id)

    @property
    def emulated(self) -> bool:
        """Whether it runs on emulators; `configuration.ends` refuses a fleet that does so in part."""
        return self.pubsub_emulator_host is not None

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that are the same wherever the same configuration is loaded.

        Does not depend on the secret, on the order of keys, or on the addresses of emulators.
        """
        return fingerprint(
            {
                **{name: getattr(self, name) for name in _FINGERPRINTED},
                "replicas": {
                    name: (replica.project, replica.database, replica.location)
                    for name, replica in self.replicas.items()
                },
            }
        )

    @property
    def dead_letter_subscription(self) -> str:
        """The id of the subscription that keeps the dead letters."""
        return f"{self.dead_letter_topic}-all"


_FINGERPRINTED = (
    *("project", "topic", "dead_letter_topic", "metadata_field", "rules", "drift_limit_us"),
    *("tombstone_retention_us", "conflict_retention_us", "pull", "expirations"),
)
"""The fleet's fields that its fingerprint covers, besides its replicas."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where changes are applied: one replica of a fleet."""

    fleet: Fleet
    replica: Replica

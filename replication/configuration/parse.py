"""The fleet: its replicas, and which documents are replicated between them, how.

    fleet.yaml ── marked_yaml ── config_file ── parse_fleet ──> Fleet
                  lines, keys    one key each    keys together

Every mistake of a file is reported with `file:line: key: what; remedy`, all of one stage at once. Nothing is
read here: the secret and custom policies come through functions.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, assert_never

from conflict.policies import FieldRules, LastWriteWins, Precedence
from conflict.resolve import OnDelete, Policy
from replication.configuration import fleet as config_file
from replication.configuration.analytics import analytics_schema, read_analytics
from replication.configuration.fleet import (
    SCHEMA_ID,
    Conflict,
    CustomShape,
    FieldRulesShape,
    FleetShape,
    LastWriteWinsShape,
    PrecedenceShape,
    RuleShape,
)
from replication.configuration.marked_yaml import Key, read_yaml
from replication.documents.metadata import MetadataCodec
from replication.documents.wire import MICROS, database_prefix
from replication.errors import ConfigError
from replication.fleet.fingerprint import fingerprint
from replication.fleet.paths import EVERY_DOCUMENT, EVERY_DOCUMENT_REGEX, parse_pattern
from replication.limits import FILTER_BYTES_MAX

SECRET_BYTES_MIN = 16
"""As long as the seal it keys: a shorter one is easier to guess than the seal."""

Problem = tuple[Key, str]


class Mode(StrEnum):
    """Which replicas' changes to a collection are replicated: everybody's, the primary's, or nobody's."""

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

    threads: int = config_file.PULL_THREADS
    max_messages: int = config_file.PULL_MESSAGES


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
    metadata_field: str = config_file.METADATA_FIELD
    secret: bytes | None = field(default=None, repr=False)
    secret_file: str | None = None
    drift_limit_us: int = config_file.microseconds(config_file.DRIFT_LIMIT)
    tombstone_retention_us: int = config_file.microseconds(config_file.TOMBSTONE_RETENTION)
    conflict_retention_us: int = config_file.microseconds(config_file.CONFLICT_RETENTION)
    pull: Pull = field(default_factory=Pull)
    expirations: Literal["local", "replicate"] = "local"
    analytics: Mapping[str, Any] | None = None
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
        """The replica that a database is; None where it is none of the fleet's."""
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
        """The filter of that subscription: what is for this replica, and what has no attributes at all.

        A message without attributes must reach somebody to be dead-lettered: do not filter for what is known.
        """
        text = (
            f'(NOT attributes:to AND (NOT attributes.replica = "{replica_id}" OR attributes.heal = "1"))'
            f' OR attributes.to = "{replica_id}"'
        )
        if len(text.encode()) > FILTER_BYTES_MAX:
            raise ConfigError(
                f"the subscription filter of replica '{replica_id}' is longer than Pub/Sub's "
                f"{FILTER_BYTES_MAX} bytes; give the replica a shorter id"
            )
        return text

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
    *("tombstone_retention_us", "conflict_retention_us", "pull", "expirations", "analytics"),
)
"""The fleet's fields that its fingerprint covers, beside its replicas."""


def fleet_schema() -> dict[str, Any]:
    """The JSON schema of the file, for editors.

    It rejects what the loader rejects, except what no schema can say: references from one part of the file to
    another (a primary that is no replica, a rule that can never match, a database twice), and files that are
    missing.
    """
    schema = FleetShape.model_json_schema()
    section = analytics_schema()
    schema["$defs"] |= section.pop("$defs", {})
    what = FleetShape.model_fields["analytics"].description
    schema["properties"]["analytics"] = {"description": what, "anyOf": [section, {"type": "null"}]}
    # Where one matches every document and is not the last, the loader says that a later one never matches.
    schema["properties"]["collections"]["contains"] = {
        "properties": {"match": {"pattern": EVERY_DOCUMENT_REGEX}}
    }
    schema["$defs"]["RuleShape"]["allOf"] = [
        _in_mode(Mode.SINGLE_PRIMARY, required=["primary"], absent=["conflict", "on_delete"]),
        _in_mode(Mode.MULTI_PRIMARY, absent=["primary"]),
        _in_mode(Mode.LOCAL, absent=["primary", "conflict", "on_delete", "lag_target"]),
    ]
    _close(schema)
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "$id": SCHEMA_ID, **schema, "title": "firefleet"}


def _close(schema: Any) -> None:
    """Refuse the keys that match no pattern, wherever a mapping's keys have one."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close(part)
    elif isinstance(schema, list):
        for part in schema:
            _close(part)


def _in_mode(mode: Mode, *, absent: Sequence[str], required: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a rule's schema that says which keys its mode needs, and which mean nothing in it."""
    then: dict[str, Any] = {name: {"type": "null"} for name in absent}
    then |= {name: {"type": "string"} for name in required}
    return {
        "if": {"properties": {"mode": {"const": mode.value}}},
        "then": {"properties": then, "required": list(required)},
    }


def _no_custom_policies(function: str) -> Policy:
    raise ConfigError(f"the function '{function}' cannot be loaded here; use one of the built-in policies")


def parse_fleet(
    text: str,
    *,
    file: str,
    read_secret: Callable[[str], bytes],
    load_custom: Callable[[str], Policy] = _no_custom_policies,
) -> Fleet:
    """Parse a configuration; `file` is its name in errors, and raises `ConfigError` with a line for each.

    `read_secret` gets the file's name as it is written, and may raise `OSError`; `load_custom` gets
    `package.module:function`, and may raise `ConfigError`.
    """
    source = read_yaml(text, file=file)
    shape = config_file.read_shape(source)
    problems = list(_contradictions(shape))
    if shape.analytics is not None:
        _, mistakes = read_analytics(shape.analytics, replicas=tuple(shape.replicas), topic=shape.topic)
        problems += [(("analytics", *key), mistake) for key, mistake in mistakes]
    policies = []
    for at, rule in enumerate(shape.collections):
        with _noting(problems, ("collections", at, "conflict", "policy")):
            policies.append(_policy(rule.conflict, load_custom))
    secret = None
    if shape.secret_file:
        with _noting(problems, ("secret_file",)):
            secret = _secret(shape.secret_file, read_secret)
    if problems:
        raise source.error(problems)
    return _build(shape, policies=policies, secret=secret)


@contextmanager
def _noting(problems: list[Problem], key: Key) -> Iterator[None]:
    """Turn a `ConfigError` into a problem at a key of the file, so that the rest is checked too."""
    try:
        yield
    except ConfigError as error:
        problems.append((key, str(error)))


def _secret(file: str, read_secret: Callable[[str], bytes]) -> bytes:
    remedy = f"write one with: openssl rand -hex 32 > {shlex.quote(file)}"
    try:
        secret = read_secret(file).strip()
    except OSError as error:
        raise ConfigError(f"cannot read '{file}' ({error.strerror or error}); {remedy}") from error
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"{file!r} is no file's name ({error}); name the file with the secret") from error
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(f"'{file}' holds {len(secret)} bytes, fewer than {SECRET_BYTES_MIN}; {remedy}")
    return secret


def _policy(conflict: Conflict | None, load_custom: Callable[[str], Policy]) -> Policy:
    match conflict:
        case None | LastWriteWinsShape():
            return LastWriteWins()
        case PrecedenceShape(field=name, order=order):
            return _made(Precedence, field=name, order=tuple(order))
        case FieldRulesShape(fields=fields):
            return _made(FieldRules, fields=fields)
        case CustomShape(policy=function):
            return load_custom(function)
        case _:
            assert_never(conflict)


def _made(policy: Callable[..., Policy], **parameters: Any) -> Policy:
    try:
        return policy(**parameters)
    except ValueError as error:
        raise ConfigError(f"{error}; fix it or choose another policy") from error


def _build(shape: FleetShape, *, policies: Sequence[Policy], secret: bytes | None) -> Fleet:
    replicas = {
        name: Replica(
            id=name,
            project=replica.project or shape.project,
            database=replica.database,
            location=replica.location,
            emulator_host=replica.emulator_host,
        )
        for name, replica in shape.replicas.items()
    }
    rules = tuple(_rule(rule, policy) for rule, policy in zip(shape.collections, policies, strict=True))
    return Fleet(
        project=shape.project,
        topic=shape.topic,
        replicas=replicas,
        rules=rules,
        dead_letter_topic=shape.dead_letter_topic or "",
        metadata_field=shape.metadata_field,
        secret=secret,
        secret_file=shape.secret_file,
        drift_limit_us=shape.drift_limit,
        tombstone_retention_us=shape.tombstone_retention,
        conflict_retention_us=shape.conflict_retention,
        pull=Pull(threads=shape.pull.threads, max_messages=shape.pull.max_messages),
        expirations=shape.expirations,
        analytics=shape.analytics,
        pubsub_emulator_host=shape.pubsub_emulator_host,
    )


def _rule(shape: RuleShape, policy: Policy) -> Rule:
    return Rule(
        match=str(shape.match),
        mode=Mode(shape.mode),
        primary=shape.primary,
        policy=policy,
        on_delete=OnDelete(shape.on_delete or OnDelete.LWW),
        lag_target=shape.lag_target / MICROS if shape.lag_target else None,
    )


def _contradictions(shape: FleetShape) -> Iterator[Problem]:
    """What each key allows and the keys together do not."""
    yield from _shared_databases(shape)
    if shape.dead_letter_topic == shape.topic:
        yield ("dead_letter_topic",), "is the topic itself; name another, or leave it out for the default"
    for at, rule in enumerate(shape.collections):
        for key, text in _rule_contradictions(rule, list(shape.replicas)):
            yield ("collections", at, key), text
    yield from _unreachable(shape)
    last = len(shape.collections) - 1
    if not shape.collections[last].match.covers(EVERY_DOCUMENT):
        yield (
            ("collections", last, "match"),
            "the last rule does not match every document; add one after it: "
            '{match: "{document=**}", mode: local}',
        )


def _shared_databases(shape: FleetShape) -> Iterator[Problem]:
    first: dict[tuple[str, str], str] = {}
    for name, replica in shape.replicas.items():
        database = (replica.project or shape.project, replica.database)
        if database in first:
            yield (
                ("replicas", name, "database"),
                f"'{replica.database}' of project '{database[0]}' is replica '{first[database]}' already; "
                "give each replica a database of its own",
            )
        first.setdefault(database, name)


def _rule_contradictions(rule: RuleShape, replicas: Sequence[str]) -> Iterator[tuple[str, str]]:
    mode, known = Mode(rule.mode), ", ".join(replicas)
    if mode is Mode.SINGLE_PRIMARY and rule.primary is None:
        yield "primary", f"is missing; name the replica that takes the writes: {known}"
    elif mode is not Mode.SINGLE_PRIMARY and rule.primary is not None:
        yield "primary", f"means nothing for {mode}; remove it, or write mode: single-primary"
    elif rule.primary is not None and rule.primary not in replicas:
        yield "primary", f"'{rule.primary}' is no replica; choose one of {known}"
    if mode is not Mode.MULTI_PRIMARY:
        for key in ("conflict", "on_delete"):
            if getattr(rule, key) is not None:
                yield key, f"means nothing for {mode}; remove it, or write mode: multi-primary"
    if mode is Mode.LOCAL and rule.lag_target is not None:
        yield "lag_target", "means nothing for local; remove it, or choose another mode"


def _unreachable(shape: FleetShape) -> Iterator[Problem]:
    patterns = [rule.match for rule in shape.collections]
    for at, pattern in enumerate(patterns):
        for before, earlier in enumerate(patterns[:at]):
            if earlier.covers(pattern):
                yield (
                    ("collections", at, "match"),
                    f"'{pattern}' never matches, because collections.{before} ('{earlier}') comes first and "
                    "matches all of it; move this rule above that one, or remove it",
                )
                break

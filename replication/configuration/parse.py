"""Parse the configuration file: text in, typed values out.

    fleet.yaml ── marked_yaml ── fleet, analytics ── parse ──> Configuration
                  lines, keys    one key each        keys together

Every mistake of a file is reported with `file:line: key: what; remedy`, all of one stage at once. Nothing is
read here: the secret and custom policies come through functions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, assert_never

from conflict.policies import FieldRules, LastWriteWins, Precedence
from conflict.resolve import OnDelete, Policy
from replication.configuration import fleet as config_file
from replication.configuration.analytics import Analytics, read_analytics
from replication.configuration.fleet import (
    Conflict,
    CustomShape,
    FieldRulesShape,
    FleetShape,
    LastWriteWinsShape,
    PrecedenceShape,
    RuleShape,
)
from replication.configuration.marked_yaml import Key, read_yaml
from replication.configuration.problems import Problem
from replication.configuration.secrets import read_secret_file
from replication.documents.wire import MICROS
from replication.errors import ConfigError
from replication.fleet.fingerprint import fingerprint
from replication.fleet.model import Fleet, Mode, Pull, Replica, Rule
from replication.fleet.paths import EVERY_DOCUMENT


def _no_custom_policies(function: str) -> Policy:
    raise ConfigError(f"the function '{function}' cannot be loaded here; use one of the built-in policies")


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the file says, section by section. The core sees `fleet` only."""

    fleet: Fleet
    analytics: Analytics | None = None

    def require_analytics(self, file: str) -> Analytics:
        """The section `analytics`; `ConfigError` where the file has none."""
        if self.analytics is None:
            raise ConfigError(
                f"{file}: analytics: is missing; add `analytics:` with the `types` of events that are published"
            )
        return self.analytics

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that are the same wherever the same configuration is loaded.

        Does not depend on the secret, on the order of keys, or on the addresses of emulators.
        """
        if self.analytics is None:
            return self.fleet.fingerprint
        return fingerprint(
            {"fleet": self.fleet.fingerprint, "analytics": self.analytics.model_dump(mode="json")}
        )


def parse_configuration(
    text: str,
    *,
    file: str,
    read_secret: Callable[[str], bytes],
    load_custom: Callable[[str], Policy] = _no_custom_policies,
) -> Configuration:
    """Parse a configuration; `file` is its name in errors, and raises `ConfigError` with a line for each.

    `read_secret` gets the file's name as it is written, and may raise `OSError`; `load_custom` gets
    `package.module:function`, and may raise `ConfigError`.
    """
    source = read_yaml(text, file=file)
    shape = config_file.read_shape(source)
    problems = list(_contradictions(shape))
    analytics = None
    if shape.analytics is not None:
        analytics, mistakes = read_analytics(shape.analytics, replicas=tuple(shape.replicas), topic=shape.topic)
        problems += [(("analytics", *key), mistake) for key, mistake in mistakes]
    policies = []
    for at, rule in enumerate(shape.collections):
        with _noting(problems, ("collections", at, "conflict", "policy")):
            policies.append(_policy(rule.conflict, load_custom))
    secret = None
    if shape.secret_file:
        with _noting(problems, ("secret_file",)):
            secret = read_secret_file(shape.secret_file, read_secret)
    if problems:
        raise source.error(problems)
    return Configuration(_build(shape, policies=policies, secret=secret), analytics)


def parse_fleet(
    text: str,
    *,
    file: str,
    read_secret: Callable[[str], bytes],
    load_custom: Callable[[str], Policy] = _no_custom_policies,
) -> Fleet:
    """The fleet alone of a configuration; see `parse_configuration`."""
    return parse_configuration(text, file=file, read_secret=read_secret, load_custom=load_custom).fleet


@contextmanager
def _noting(problems: list[Problem], key: Key) -> Iterator[None]:
    """Turn a `ConfigError` into a problem at a key of the file, so that the rest is checked too."""
    try:
        yield
    except ConfigError as error:
        problems.append((key, str(error)))


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
                "give each replica its own database",
            )
        first.setdefault(database, name)


def _rule_contradictions(rule: RuleShape, replicas: Sequence[str]) -> Iterator[tuple[str, str]]:
    mode, known = Mode(rule.mode), ", ".join(replicas)
    if mode is Mode.SINGLE_PRIMARY and rule.primary is None:
        yield "primary", f"is missing; name the replica that takes the writes: {known}"
    elif mode is not Mode.SINGLE_PRIMARY and rule.primary is not None:
        yield "primary", f"means nothing for {mode}; remove it, or write mode: single-primary"
    elif rule.primary is not None and rule.primary not in replicas:
        yield "primary", f"'{rule.primary}' is not a replica; choose one of {known}"
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

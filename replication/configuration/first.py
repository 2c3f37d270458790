"""The text of a first `fleet.yaml`: every key that a fleet needs, with the reason, ready to be edited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from replication.configuration.fleet import DatabaseId, Location, ProjectId, ReplicaId
from replication.documents.metadata import CLOCK_ENTRIES_MAX
from replication.errors import ConfigError

SECRET_FILE = "fleet.secret"  # noqa: S105 - the name of the file

_TEXT = """\
# yaml-language-server: $schema=./fleet.schema.json
# The line above is for editors; create the schema with: firefleet check --schema > fleet.schema.json

# The Google Cloud project of the Pub/Sub topic, and of every database that names no other project.
project: {project}
# The Pub/Sub topic that carries the changes. `firefleet provision` creates it and its subscriptions.
topic: changes
# Keys the seal on the versions that firefleet keeps in each document (field `_repl`), so that no one who may
# write documents can forge one. All processes need the same file. Set it before the first write, keep it.
secret_file: {secret_file}

# One Firestore database each. The id (such as `{first}`) is part of subscription names and of every version:
# do not change it on a running fleet. `location` is where the database is, and where its workers should run.
replicas:
{replicas}

# What is replicated, and how. The first rule that matches a document decides: `firefleet explain orders/o1`.
collections:
  # Every replica takes writes. Where two are concurrent, the order that is further along stays; the other
  # one is kept in the conflict log. An order that is deleted while someone changes it stays.
  - match: "orders/{{order}}"
    mode: multi-primary
    conflict: {{policy: precedence, field: status, order: [pending, paid, shipped, refunded]}}
    on_delete: update-wins

  # A rule for each field: counts keep the larger value, lists keep the elements of both.
  - match: "profiles/{{user}}"
    mode: multi-primary
    conflict: {{policy: field-rules, fields: {{visits: max, tags: union}}}}
    on_delete: update-wins

  # One replica takes the writes: a write anywhere else is reverted and logged.
  - match: "wallets/{{id}}"
    mode: single-primary
    primary: {first}

  # Never leaves the replica where it was written, at any depth.
  - match: "sessions/{{document=**}}"
    mode: local

  # Everything else: the later of two concurrent writes stays. (`mode: local` replicates only what the rules
  # above name.)
  - match: "{{document=**}}"
    mode: multi-primary
"""


@dataclass(frozen=True, slots=True)
class NewReplica:
    """One replica of the file."""

    id: str
    database: str
    location: str


DEFAULT_REPLICAS = (
    NewReplica("eu", "app-eu", "europe-west1"),
    NewReplica("us", "app-us", "us-central1"),
    NewReplica("apac", "app-apac", "asia-south1"),
)


def parse_replica(text: str) -> NewReplica:
    """Read `ID=DATABASE@LOCATION`; raises `ConfigError`."""
    name, equals, rest = text.partition("=")
    database, at, location = rest.partition("@")
    if not (equals and at):
        raise ConfigError(f"--replica: '{text}' is not ID=DATABASE@LOCATION; write eu=app-eu@europe-west1")
    return NewReplica(
        checked(ReplicaId, name, "--replica"),
        checked(DatabaseId, database, "--replica"),
        checked(Location, location, "--replica"),
    )


def first_config(*, project: str, replicas: Sequence[NewReplica]) -> str:
    """The file's text; raises `ConfigError` for a project or replicas that no fleet can have."""
    _check_distinct(replicas)
    return _TEXT.format(
        project=_scalar(checked(ProjectId, project, "--project")),
        secret_file=SECRET_FILE,
        first=_scalar(replicas[0].id),
        replicas="\n".join(
            f"  {_scalar(each.id)}: {{database: {_scalar(each.database)}, location: {_scalar(each.location)}}}"
            for each in replicas
        ),
    )


def _check_distinct(replicas: Sequence[NewReplica]) -> None:
    if len(replicas) > CLOCK_ENTRIES_MAX:
        raise ConfigError(f"--replica: {len(replicas)} replicas; a fleet has at most {CLOCK_ENTRIES_MAX}")
    ids: Mapping[str, list[str]] = {
        "id": [each.id for each in replicas],
        "database": [each.database for each in replicas],
    }
    for kind, values in ids.items():
        for value in values:
            if values.count(value) > 1:
                raise ConfigError(f"--replica: two replicas have the {kind} '{value}'; give each its own")


def checked(kind: Any, value: str, option: str) -> str:
    """A value as a type of `configuration.fleet` accepts it; `ConfigError` names the option otherwise."""
    try:
        checked: str = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{option}: {error.errors()[0]['ctx']['error']}") from error
    return checked


def _scalar(text: str) -> str:
    """Text as YAML reads it back: in quotes where it would be a number or a boolean."""
    return str(yaml.safe_dump(text, width=1_000)).splitlines()[0]

"""What `firefleet check` asks the cloud, and what each answer means: a finding, and the command that fixes it.

What the configuration alone says is in `workers.setup.config_diagnosis`. Every check here asks through a port
and judges the answer; one that cannot be asked is a finding too (`unknown`), so that a clean report never hides
what was not looked at.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from replication.configuration.parse import Fleet, Mode, Replica
from replication.errors import CannotTell, FirefleetError
from replication.fleet.cloud import Cloud, FoundSubscription
from replication.fleet.paths import parse_pattern
from replication.ports import SubscriptionSettings
from workers.setup.provision import differences, subscriptions, topics

# The region that serves a multi-region's triggers: https://cloud.google.com/firestore/docs/locations.
_MULTI_REGIONS = {"nam5": "us-central1", "eur3": "europe-west4"}
_DATABASE_PERMISSIONS = (
    "datastore.databases.get",
    "datastore.entities.get",
    "datastore.entities.create",
    "datastore.entities.update",
    "datastore.entities.delete",
)


_MEMBER = "--member=serviceAccount:WORKER_ACCOUNT"


class Level(StrEnum):
    """How bad a finding is; `unknown` is what cannot be asked here."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `remedy` holds the commands that mend it."""

    level: Level
    subject: str
    text: str
    remedy: tuple[str, ...] = ()


def diagnose_cloud(fleet: Fleet, cloud: Cloud) -> Iterator[Finding]:
    """What Pub/Sub, Firestore and IAM say."""
    yield from _asked("Pub/Sub", partial(_pubsub, fleet, cloud), otherwise=Level.FAIL)
    for replica in fleet.replicas.values():
        yield from _asked(
            f"{replica.id} database", partial(_database, fleet, replica, cloud), otherwise=Level.FAIL
        )
        for name, look in (("location", _location), ("indexes", _indexes), ("TTL", _ttl)):
            yield from _asked(f"{replica.id} {name}", partial(look, fleet, replica, cloud))
    yield from _asked("topics' roles", partial(_pubsub_roles, fleet, cloud))
    for project in sorted({replica.project for replica in fleet.replicas.values()}):
        yield from _asked(f"{project} roles", partial(_firestore_roles, project, cloud))


def _asked(
    subject: str, look: Callable[[], Iterable[Finding]], *, otherwise: Level = Level.UNKNOWN
) -> Iterator[Finding]:
    """What a check finds; where the cloud fails to answer, that is the finding."""
    try:
        yield from look()
    except CannotTell as error:
        yield Finding(Level.UNKNOWN, subject, f"cannot tell here: {error}")
    except FirefleetError as error:
        yield Finding(otherwise, subject, str(error))


def _pubsub(fleet: Fleet, cloud: Cloud) -> Iterator[Finding]:
    for topic in topics(fleet):
        if cloud.has_topic(topic):
            yield Finding(Level.OK, f"topic {topic}", "exists")
        else:
            yield Finding(Level.FAIL, f"topic {topic}", "is missing", ("firefleet provision",))
    for name, wanted in subscriptions(fleet).items():
        yield from _subscription(fleet.project, name, wanted, cloud.subscription(name))


def _subscription(
    project: str, name: str, wanted: SubscriptionSettings, found: FoundSubscription | None
) -> Iterator[Finding]:
    subject = f"subscription {name}"
    if found is None:
        yield Finding(Level.FAIL, subject, "is missing", ("firefleet provision",))
        return
    changed = differences(wanted, found.settings)
    for setting in changed:
        yield _difference(project, name, setting, wanted, found.settings)
    if found.ordered:
        text = "is ordered: one message that waits holds up all others of its key"
        yield Finding(Level.WARN, subject, text, _recreate(project, name))
    if not changed and not found.ordered:
        yield Finding(Level.OK, subject, "is set as it must be")


def _difference(
    project: str, name: str, setting: str, wanted: SubscriptionSettings, found: SubscriptionSettings
) -> Finding:
    text = f"{setting} is {getattr(found, setting) or 'none'}, not {getattr(wanted, setting) or 'none'}"
    if setting in ("topic", "filter"):
        return Finding(Level.FAIL, f"subscription {name}", text, _recreate(project, name))
    flags = {
        "ack_deadline": f"--ack-deadline={wanted.ack_deadline}",
        "retention": f"--message-retention-duration={wanted.retention}s",
        "dead_letter_topic": _dead_letter_flags(wanted),
        "delivery_attempts": _dead_letter_flags(wanted),
    }
    mend = f"gcloud pubsub subscriptions update {name} {flags[setting]} --project={project}"
    # Kept longer, events come back for longer than tombstones are known to last.
    level = Level.FAIL if setting == "retention" and found.retention > wanted.retention else Level.WARN
    return Finding(level, f"subscription {name}", text, (mend,))


def _dead_letter_flags(wanted: SubscriptionSettings) -> str:
    if wanted.dead_letter_topic is None:
        return "--clear-dead-letter-policy"
    return f"--dead-letter-topic={wanted.dead_letter_topic} --max-delivery-attempts={wanted.delivery_attempts}"


def _recreate(project: str, name: str) -> tuple[str, ...]:
    return (
        "# cannot be changed, only created anew: drain it first, what it holds is lost",
        f"gcloud pubsub subscriptions delete {name} --project={project}",
        "firefleet provision",
    )


def _database(fleet: Fleet, replica: Replica, cloud: Cloud) -> Iterator[Finding]:
    cloud.read(replica, fleet.codec.tombstone_path("firefleet/check"))
    yield Finding(Level.OK, f"{replica.id} database", f"{replica.database} answers")


def _location(fleet: Fleet, replica: Replica, cloud: Cloud) -> Iterator[Finding]:
    found, subject = cloud.location(replica), f"{replica.id} location"
    if replica.location in (found, _MULTI_REGIONS.get(found)):
        yield Finding(Level.OK, subject, found)
        return
    serving = _MULTI_REGIONS.get(found, found)
    yield Finding(
        Level.WARN,
        subject,
        f"{replica.database} is in {found}, the config says {replica.location}: its workers would be far away",
        (f"# in the config: location: {serving}",),
    )


def _indexes(fleet: Fleet, replica: Replica, cloud: Cloud) -> Iterator[Finding]:
    """An indexed field that always grows limits a collection to about 500 writes a second.

    What the conflict log holds is not to be searched either: indexed, every field of a logged body is one more
    entry to write and to pay. Its `time` stays, so that the latest conflicts can be asked for.
    """
    codec, subject = fleet.codec, f"{replica.id} indexes"
    replicated = sorted(_replicated_groups(fleet, cloud.collections(replica)))
    exempt = [(group, codec.field) for group in replicated]
    exempt += [(codec.tombstones, name) for name in (codec.field, "expire_at")]
    exempt += [(codec.conflicts, name) for name in ("versions", "expire_at")]
    exempt += [(codec.bodies, name) for name in ("body", "document", "expire_at")]
    indexed = [(group, name) for group, name in exempt if cloud.indexed(replica, group, name)]
    if not indexed:
        yield Finding(Level.OK, subject, f"{len(exempt)} fields are exempt, as they must be")
        return
    yield Finding(
        Level.WARN,
        subject,
        f"about 500 writes a second at most, by {', '.join(f'{group}.{name}' for group, name in indexed)}",
        tuple(
            f"gcloud firestore indexes fields update {name} --collection-group={group} --disable-indexes "
            f"--database={replica.database} --project={replica.project}"
            for group, name in indexed
        ),
    )


def _replicated_groups(fleet: Fleet, found: Iterable[str]) -> set[str]:
    """The collection groups that hold replicated documents: those the rules spell out, and those found."""
    groups = set()
    for rule in fleet.rules:
        collections = parse_pattern(rule.match).segments[::2]
        if rule.mode is not Mode.LOCAL and collections and collections[-1]:
            groups.add(collections[-1])
    replicated = {each for each in found if fleet.rule_for(f"{each}/document").mode is not Mode.LOCAL}
    return groups | {each for each in replicated if not fleet.codec.owns(f"{each}/document")}


def _ttl(fleet: Fleet, replica: Replica, cloud: Cloud) -> Iterator[Finding]:
    groups = (fleet.codec.tombstones, fleet.codec.conflicts, fleet.codec.bodies)
    missing = [group for group in groups if not cloud.has_ttl(replica, group, "expire_at")]
    if not missing:
        yield Finding(Level.OK, f"{replica.id} TTL", "on, for tombstones and conflicts")
        return
    yield Finding(
        Level.WARN,
        f"{replica.id} TTL",
        f"off for {', '.join(missing)}: they grow for ever",
        tuple(
            f"gcloud firestore fields ttls update expire_at --collection-group={group} --enable-ttl "
            f"--database={replica.database} --project={replica.project}"
            for group in missing
        ),
    )


def _pubsub_roles(fleet: Fleet, cloud: Cloud) -> Iterator[Finding]:
    for topic in topics(fleet):
        lacking = cloud.lacking_on_topic(topic, ("pubsub.topics.publish",))
        grant = f"gcloud pubsub topics add-iam-policy-binding {topic} --role=roles/pubsub.publisher"
        yield _roles(f"topic {topic} roles", lacking, f"{grant} {_MEMBER} --project={fleet.project}")
    for name in subscriptions(fleet):
        lacking = cloud.lacking_on_subscription(name, ("pubsub.subscriptions.consume",))
        grant = f"gcloud pubsub subscriptions add-iam-policy-binding {name} --role=roles/pubsub.subscriber"
        yield _roles(f"subscription {name} roles", lacking, f"{grant} {_MEMBER} --project={fleet.project}")


def _firestore_roles(project: str, cloud: Cloud) -> Iterator[Finding]:
    lacking = cloud.lacking_in_project(project, _DATABASE_PERMISSIONS)
    grant = f"gcloud projects add-iam-policy-binding {project} --role=roles/datastore.user {_MEMBER}"
    yield _roles(f"{project} roles", lacking, grant)


def _roles(subject: str, lacking: Sequence[str], grant: str) -> Finding:
    if not lacking:
        return Finding(Level.OK, subject, "these credentials have what a worker needs")
    return Finding(Level.FAIL, subject, f"these credentials lack {', '.join(lacking)}", (grant,))

"""What `firefleet check` asks the cloud, and what each answer means: a finding, and the command that fixes it.

What the configuration alone says is in `replication.configuration.soundness`. Every check here asks through a
port and judges the answer; one that cannot be asked is a finding too (`unknown`), so that a clean report never
hides what was not looked at.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from replication.adapters.pubsub_admin import start_emulator
from replication.configuration.findings import Finding, Level
from replication.configuration.parse import Configuration
from replication.configuration.resources import differences, subscriptions, topics
from replication.errors import CannotTell, ConfigError, FirefleetError, NotOnEmulators, Transient
from replication.fleet.cloud import Cloud, FoundSubscription
from replication.fleet.model import Fleet, Mode, Replica
from replication.fleet.paths import parse_pattern
from replication.ports import SubscriptionSettings

EMULATORS = "not asked: emulators have no locations, indexes, TTL or permissions"

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


def diagnose_cloud(configuration: Configuration, cloud: Cloud) -> Iterator[Finding]:
    """What Pub/Sub, Firestore and IAM say."""
    fleet = configuration.fleet
    pubsub = list(_asked("Pub/Sub", partial(_pubsub, configuration, cloud), otherwise=Level.FAIL))
    yield from pubsub
    for replica in fleet.replicas.values():
        yield from _replica(fleet, replica, cloud)
    if not _is_away(pubsub, "Pub/Sub"):
        yield from _asked("topics' roles", partial(_pubsub_roles, configuration, cloud))
    for project in sorted({replica.project for replica in fleet.replicas.values()}):
        yield from _asked(f"{project} roles", partial(_firestore_roles, project, cloud))


def _replica(fleet: Fleet, replica: Replica, cloud: Cloud) -> Iterator[Finding]:
    """What one database says; a database that does not answer is asked nothing else."""
    subject = f"{replica.id} database"
    answer = list(_asked(subject, partial(_database, fleet, replica, cloud), otherwise=Level.FAIL))
    yield from answer
    if _is_away(answer, subject):
        return
    for name, look in (("location", _location), ("indexes", _indexes), ("TTL", _ttl)):
        yield from _asked(f"{replica.id} {name}", partial(look, fleet, replica, cloud))


def _is_away(findings: Sequence[Finding], subject: str) -> bool:
    return any(each.level is Level.FAIL and each.subject == subject for each in findings)


def _asked(
    subject: str, look: Callable[[], Iterable[Finding]], *, otherwise: Level = Level.UNKNOWN
) -> Iterator[Finding]:
    """What a check finds; where the cloud fails to answer, that is the finding. Raises `ConfigError`."""
    try:
        yield from look()
    except ConfigError:
        # Without credentials nothing else can be asked either.
        raise
    except NotOnEmulators as error:
        yield Finding(Level.UNKNOWN, subject, f"unknown here: {error}", cause=EMULATORS)
    except CannotTell as error:
        yield Finding(Level.UNKNOWN, subject, f"unknown here: {error}")
    except FirefleetError as error:
        yield Finding(otherwise, subject, str(error))


def _pubsub(configuration: Configuration, cloud: Cloud) -> Iterator[Finding]:
    fleet = configuration.fleet
    host = fleet.pubsub_emulator_host
    try:
        cloud.has_topic(fleet.topic)
    except Transient as error:
        remedy = (start_emulator(host, fleet.project),) if host else ()
        text = f"no emulator answers at {host}" if host else str(error)
        yield Finding(Level.FAIL, "Pub/Sub", text, remedy)
        return
    for topic in topics(configuration):
        if cloud.has_topic(topic):
            yield Finding(Level.OK, f"topic {topic}", "exists")
        else:
            yield Finding(Level.FAIL, f"topic {topic}", "is missing", ("firefleet provision",))
    for name, wanted in subscriptions(configuration).items():
        yield from _subscription(fleet.project, name, wanted, cloud.subscription(name))


def _subscription(
    project: str, name: str, wanted: SubscriptionSettings, found: FoundSubscription | None
) -> Iterator[Finding]:
    subject = f"subscription {name}"
    if found is None:
        yield Finding(Level.FAIL, subject, "is missing", ("firefleet provision",))
        return
    changed = differences(wanted, found.settings)
    anew = found.ordered or bool({"topic", "filter"} & set(changed))
    for setting in changed:
        finding = _difference(project, name, setting, wanted, found.settings)
        # Creating it again sets everything right: the subscription to be deleted needs no second command.
        yield dataclasses.replace(finding, remedy=_recreate(project, name)) if anew else finding
    if found.ordered:
        text = "is ordered: one message that waits delays all others of its key"
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
    update = f"gcloud pubsub subscriptions update {name} {flags[setting]} --project={project}"
    # Kept longer, events come back for longer than tombstones are known to last.
    level = Level.FAIL if setting == "retention" and found.retention > wanted.retention else Level.WARN
    return Finding(level, f"subscription {name}", text, (update,))


def _dead_letter_flags(wanted: SubscriptionSettings) -> str:
    if wanted.dead_letter_topic is None:
        return "--clear-dead-letter-policy"
    return f"--dead-letter-topic={wanted.dead_letter_topic} --max-delivery-attempts={wanted.delivery_attempts}"


def _recreate(project: str, name: str) -> tuple[str, ...]:
    return (
        f"# {name}: can only be deleted and created again, which loses the messages it holds.",
        f"# {name}: so stop capture (Eventarc keeps events for 24 h), and let",
        f"# {name}: its workers run until its num_undelivered_messages is 0.",
        f"gcloud pubsub subscriptions delete {name} --project={project}",
        "firefleet provision",
    )


def _database(fleet: Fleet, replica: Replica, cloud: Cloud) -> Iterator[Finding]:
    subject, host = f"{replica.id} database", replica.emulator_host
    try:
        cloud.read(replica, fleet.codec.tombstone_path("firefleet/check"))
    except Transient as error:
        if not host:
            raise
        start = f"gcloud emulators firestore start --host-port={host}"
        cause = f"the Firestore emulator at {host} does not answer"
        yield Finding(Level.FAIL, subject, str(error), (start,), cause=cause)
        return
    yield Finding(Level.OK, subject, f"{replica.database} answers")


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
        f"off for {', '.join(missing)}: they grow forever",
        tuple(
            f"gcloud firestore fields ttls update expire_at --collection-group={group} --enable-ttl "
            f"--database={replica.database} --project={replica.project}"
            for group in missing
        ),
    )


def _pubsub_roles(configuration: Configuration, cloud: Cloud) -> Iterator[Finding]:
    fleet = configuration.fleet
    for topic in topics(configuration):
        lacking = cloud.lacking_on_topic(topic, ("pubsub.topics.publish",))
        grant = f"gcloud pubsub topics add-iam-policy-binding {topic} --role=roles/pubsub.publisher"
        yield _roles(f"topic {topic} roles", lacking, f"{grant} {_MEMBER} --project={fleet.project}")
    for name in subscriptions(configuration):
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

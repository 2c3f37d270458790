"""`firefleet provision`: creates what is missing of the topics, the subscriptions and an emulator's triggers.

Creates, and never changes or deletes: a subscription that is set otherwise is reported, because changing it
can lose its backlog. For emulators and first steps; in production Terraform creates the same.
"""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import StrEnum

import click

from replication.adapters.pubsub_admin import PubsubAdmin
from replication.changes.envelope import WRITTEN
from replication.configuration.analytics import Analytics, parse_analytics
from replication.configuration.parse import Fleet, Replica
from replication.errors import FirefleetError, Interrupted, Transient
from replication.ports import SubscriptionSettings
from workers.config import ConfigFile
from workers.runtime.output import counted, print_json, print_table

_EMULATOR_SECONDS = 30.0


class State(StrEnum):
    """What became of one resource."""

    EXISTS = "exists"
    CREATED = "created"
    MISSING = "missing"
    DIFFERS = "differs"
    REGISTERED = "registered"


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing the fleet needs, as it was found or created."""

    kind: str
    name: str
    state: State
    note: str = ""


def topics(fleet: Fleet) -> tuple[str, ...]:
    """The ids of the topics the fleet needs."""
    needed: tuple[str, ...] = (fleet.topic, fleet.dead_letter_topic)
    if (analytics := analytics_of(fleet)) is not None:
        needed += (analytics.topic, analytics.dead_letters)
        if analytics.warehouse is not None:
            needed += (analytics.warehouse.topic,)
    return needed


def analytics_of(fleet: Fleet) -> Analytics | None:
    """The fleet's `analytics:` section; None where it has none."""
    if fleet.analytics is None:
        return None
    return parse_analytics(fleet.analytics, replicas=tuple(fleet.replicas), topic=fleet.topic)


def subscriptions(fleet: Fleet) -> Mapping[str, SubscriptionSettings]:
    """The subscriptions the fleet needs: one for each replica, and one that keeps the dead letters.

    Without the last, Pub/Sub would throw away what is published to the dead-letter topic.
    """
    wanted = {
        fleet.subscription(replica): SubscriptionSettings(
            topic=fleet.topic,
            filter=fleet.subscription_filter(replica),
            dead_letter_topic=fleet.dead_letter_topic,
        )
        for replica in fleet.replicas
    }
    wanted[fleet.dead_letter_subscription] = SubscriptionSettings(topic=fleet.dead_letter_topic)
    if (analytics := analytics_of(fleet)) is not None:
        wanted |= _analytics_subscriptions(analytics, tuple(fleet.replicas))
    return wanted


def _analytics_subscriptions(
    analytics: Analytics, replicas: tuple[str, ...]
) -> Mapping[str, SubscriptionSettings]:
    # The warehouse's topic has none here: a BigQuery subscription drains it.
    wanted = {
        analytics.subscription(replica): SubscriptionSettings(
            topic=analytics.topic,
            filter=analytics.subscription_filter(replica, replicas),
            ack_deadline=analytics.ack_deadline_s,
            dead_letter_topic=analytics.dead_letters,
        )
        for replica in replicas
    }
    wanted[analytics.dead_letter_subscription] = SubscriptionSettings(topic=analytics.dead_letters)
    return wanted


_COMPARED = ("topic", "filter", "ack_deadline", "retention", "dead_letter_topic", "delivery_attempts")


def differences(wanted: SubscriptionSettings, found: SubscriptionSettings) -> list[str]:
    """The names of the settings that are not as wanted; how fast Pub/Sub backs off is the operator's choice."""
    return [name for name in _COMPARED if getattr(wanted, name) != getattr(found, name)]


def require_topic(fleet: Fleet, topic: str) -> None:
    """Fail within seconds where an emulator does not answer or lacks a topic, with the remedy.

    Asks emulators alone: who may publish to a real topic need not be allowed to look it up.
    """
    if fleet.pubsub_emulator_host is None:
        return
    with closing(PubsubAdmin(fleet.project, emulator_host=fleet.pubsub_emulator_host)) as admin:
        if not admin.reach(topic):
            raise FirefleetError(f"topic {topic} does not exist; create it: firefleet provision")


def trigger_id(replica: Replica) -> str:
    """The id of a replica's trigger at its emulator. Fixed, because a second id would double every event."""
    return f"capture-{replica.id}"


def provision(fleet: Fleet, admin: PubsubAdmin, *, dry_run: bool) -> Iterator[Resource]:
    """Create what is missing and say so, one by one; with `dry_run` only say what is missing.

    `Transient` within seconds where Pub/Sub does not answer.
    """
    admin.reach(fleet.topic)
    for topic in topics(fleet):
        yield _topic(admin, topic, dry_run=dry_run)
    for name, wanted in subscriptions(fleet).items():
        yield _subscription(admin, name, wanted, dry_run=dry_run)
    for replica in fleet.replicas.values():
        if replica.emulator_host:
            yield _trigger(replica, replica.emulator_host, dry_run=dry_run)


def _topic(admin: PubsubAdmin, topic: str, *, dry_run: bool) -> Resource:
    if dry_run:
        return Resource("topic", topic, State.EXISTS if admin.has_topic(topic) else State.MISSING)
    return Resource("topic", topic, State.CREATED if admin.ensure_topic(topic) else State.EXISTS)


def _subscription(admin: PubsubAdmin, name: str, wanted: SubscriptionSettings, *, dry_run: bool) -> Resource:
    found = admin.describe(name)
    if found is None:
        if not dry_run:
            admin.ensure_subscription(name, wanted)
        return Resource("subscription", name, State.MISSING if dry_run else State.CREATED)
    if changed := differences(wanted, found):
        note = f"{', '.join(changed)}: `firefleet check` says how to fix it"
        return Resource("subscription", name, State.DIFFERS, note)
    return Resource("subscription", name, State.EXISTS)


def _trigger(replica: Replica, emulator_host: str, *, dry_run: bool) -> Resource:
    # The emulator cannot be asked which triggers it has; registering one again changes nothing.
    if dry_run:
        return Resource("trigger", trigger_id(replica), State.MISSING, "or there already: it cannot be asked")
    register_trigger(replica, emulator_host)
    return Resource("trigger", trigger_id(replica), State.REGISTERED, f"{replica.database} at {emulator_host}")


def register_trigger(replica: Replica, emulator_host: str) -> None:
    """Have a Firestore emulator send an event for every change of the replica's database."""
    body = {
        "eventType": WRITTEN,
        "database": replica.database,
        "namespace": "(default)",
        "document": {"value": "{document=**}", "matchType": "PATH_PATTERN"},
    }
    path = f"/emulator/v1/projects/{replica.project}/eventarcTrigger?eventarcTriggerId={trigger_id(replica)}"
    where = f"the Firestore emulator of replica '{replica.id}' at {emulator_host}"
    with closing(http.client.HTTPConnection(emulator_host, timeout=_EMULATOR_SECONDS)) as connection:
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise Transient(f"{where} does not answer ({error}); start it, or correct emulator_host") from error
    if answer.status != http.client.OK:
        raise FirefleetError(
            f"{where} refused the trigger ({answer.status}: {text.strip()}); "
            "start it with --functions_emulator=HOST:PORT"
        )


@click.command(name="provision")
@click.option("--dry-run", is_flag=True, help="Say what is missing and create nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(config: ConfigFile, *, dry_run: bool, as_json: bool) -> None:
    """Create the topics and subscriptions that are missing, and an emulator's Firestore triggers.

    Exit code 1 if something exists that is set otherwise.
    """
    fleet = config.load()
    resources: list[Resource] = []
    with closing(PubsubAdmin(fleet.project, emulator_host=fleet.pubsub_emulator_host)) as admin:
        try:
            resources.extend(provision(fleet, admin, dry_run=dry_run))
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"interrupted: {counted(len(resources), 'resource')} looked at or created, which stay; "
                "run it again to go on"
            ) from error
        except FirefleetError:
            if resources and not as_json:
                _print(resources)
            raise
    if as_json:
        print_json({"resources": [asdict(each) for each in resources]})
    else:
        _print(resources)
    if any(each.state is State.DIFFERS for each in resources):
        raise SystemExit(1)


def _print(resources: Sequence[Resource]) -> None:
    print_table(
        ("kind", "name", "state", "note"),
        ((each.kind, each.name, str(each.state), each.note) for each in resources),
    )

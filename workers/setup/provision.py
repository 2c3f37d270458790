"""`firefleet provision`: creates what is missing of the topics, the subscriptions and an emulator's triggers.

Creates, and never changes or deletes: a subscription with other settings is reported, because changing it
can lose its backlog. For emulators and first steps; in production Terraform creates the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import StrEnum

import click

from replication.adapters.pubsub_admin import PubsubAdmin
from replication.configuration.parse import Configuration
from replication.configuration.resources import differences, subscriptions, topics
from replication.errors import FirefleetError, Interrupted
from replication.fleet.model import Replica
from replication.ports import SubscriptionSettings
from replication.words import counted
from workers.config import ConfigFile
from workers.runtime.output import print_json, print_table
from workers.runtime.triggers import register_trigger, trigger_id


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


def provision(configuration: Configuration, admin: PubsubAdmin, *, dry_run: bool) -> Iterator[Resource]:
    """Create what is missing and say so, one by one; with `dry_run` only say what is missing.

    `Transient` within seconds where Pub/Sub does not answer.
    """
    fleet = configuration.fleet
    admin.reach(fleet.topic)
    for topic in topics(configuration):
        yield _topic(admin, topic, dry_run=dry_run)
    for name, wanted in subscriptions(configuration).items():
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


@click.command(name="provision")
@click.option("--dry-run", is_flag=True, help="Say what is missing and create nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(config: ConfigFile, *, dry_run: bool, as_json: bool) -> None:
    """Create the topics and subscriptions that are missing, and an emulator's Firestore triggers.

    Exit code 1 if something exists with other settings.
    """
    configuration = config.load_all()
    fleet = configuration.fleet
    resources: list[Resource] = []
    with closing(PubsubAdmin(fleet.project, emulator_host=fleet.pubsub_emulator_host)) as admin:
        try:
            resources.extend(provision(configuration, admin, dry_run=dry_run))
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

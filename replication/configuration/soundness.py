"""What a configuration alone shows: the findings of `firefleet check`, and what keeps a worker from starting.

One place decides: a finding that fails here is a failed check, and capture and the workers refuse to start with
its text. Nothing is asked of the cloud.
"""

import difflib
import re
from collections.abc import Iterator

from conflict.policies import LastWriteWins
from conflict.resolve import OnDelete
from replication.configuration.fields import duration_text
from replication.configuration.findings import Finding, Level
from replication.configuration.parse import Configuration
from replication.configuration.resources import subscriptions
from replication.documents.wire import MICROS
from replication.fleet.model import Fleet, Mode
from replication.fleet.paths import parse_pattern
from replication.words import counted

EVENTARC_RETRY_SECONDS = 24 * 3_600
"""How long Eventarc tries to deliver an event: https://cloud.google.com/eventarc/docs/retry-events."""

_AREAS = ("africa", "asia", "australia", "europe", "me", "northamerica", "southamerica", "us")
_SIDES = ("north", "south", "east", "west", "central", "northeast", "northwest", "southeast", "southwest")
_REGION = re.compile(rf"({'|'.join(_AREAS)})-({'|'.join(_SIDES)})[0-9]{{1,2}}|(nam|eur)[0-9]{{1,2}}")
"""How Google Cloud names regions and multi-regions: a form and not a list, so that a new region needs no new
release."""


def diagnose_config(configuration: Configuration) -> Iterator[Finding]:
    """What the configuration alone says."""
    fleet = configuration.fleet
    contents = f"{counted(len(fleet.replicas), 'replica')}, {counted(len(fleet.rules), 'rule')}"
    yield Finding(Level.OK, "config", contents)
    if len(fleet.replicas) == 1:
        yield Finding(
            Level.WARN,
            "replicas",
            "only one: there is nowhere to replicate to",
            ("# in the config, under replicas: add a database in another region",),
        )
    yield _retention(configuration)
    yield from _secret(fleet)
    yield from _deletes_under_policies(fleet)
    yield from _reserved_collections(fleet)
    yield from _replicated_analytics(configuration)
    yield from _locations(fleet)


def _retention(configuration: Configuration) -> Finding:
    """A tombstone must outlive the latest redelivery, else a late event brings a deleted document back."""
    fleet = configuration.fleet
    kept = fleet.tombstone_retention_us // MICROS
    redelivered = (
        max(wanted.retention for wanted in subscriptions(configuration).values()) + EVENTARC_RETRY_SECONDS
    )
    if kept > redelivered:
        return Finding(Level.OK, "tombstone_retention", duration_text(fleet.tombstone_retention_us))
    return Finding(
        Level.FAIL,
        "tombstone_retention",
        f"{duration_text(fleet.tombstone_retention_us)}, but events can come back for "
        f"{duration_text(redelivered * MICROS)} (subscriptions, then Eventarc): deleted documents would return",
        ("# in the config: tombstone_retention: 10d",),
    )


def _secret(fleet: Fleet) -> Iterator[Finding]:
    if fleet.secret is not None:
        return
    if fleet.emulated:
        yield Finding(Level.OK, "secret_file", "none, which is fine on emulators; the cloud needs one")
        return
    yield Finding(
        Level.FAIL,
        "secret_file",
        "none: whoever may write documents can forge their versions",
        (
            "# only before the first write. On a running fleet every process must change at once, and each",
            "# later update of an old document counts as a conflict: a policy may then revert it.",
            "openssl rand -hex 32 > fleet.secret && chmod 600 fleet.secret",
            "# and in the config: secret_file: fleet.secret",
        ),
    )


def _deletes_under_policies(fleet: Fleet) -> Iterator[Finding]:
    """Rules whose policy and `on_delete` are lawful separately, but not together.

    An approval beats a later edit; the edit is later than a delete; the delete is later than the approval.
    Which two meet first decides.
    """
    for rule in fleet.rules:
        lawful = isinstance(rule.policy, LastWriteWins) or rule.on_delete is not OnDelete.LWW
        if rule.mode is Mode.MULTI_PRIMARY and not lawful:
            yield Finding(
                Level.WARN,
                f"collections: {rule.match}",
                f"{rule.policy.name} with on_delete: lww: a delete among two writes may end on either answer",
                ("# in the config, next to conflict: on_delete: delete-wins, or update-wins",),
            )


def _reserved_collections(fleet: Fleet) -> Iterator[Finding]:
    """Rules for this system's own collections: they are never replicated, whatever a rule says."""
    reserved = (fleet.codec.tombstones, fleet.codec.conflicts)
    for rule in fleet.rules:
        first = next(iter(parse_pattern(rule.match).segments), None)
        if first in reserved:
            yield Finding(
                Level.WARN,
                f"collections: {rule.match}",
                f"'{first}' is firefleet's own collection, which is never replicated: this rule does nothing",
                ("# in the config: remove this rule",),
            )


def _replicated_analytics(configuration: Configuration) -> Iterator[Finding]:
    """Analytics documents belong to their region: a rule that replicates them multiplies every write."""
    fleet, analytics = configuration.fleet, configuration.analytics
    if analytics is None:
        return
    stored = parse_pattern(f"{analytics.collection}/{{event}}")
    decides = next((rule for rule in fleet.rules if parse_pattern(rule.match).covers(stored)), None)
    if decides is None or decides.mode is Mode.LOCAL:
        yield Finding(Level.OK, "analytics.collection", f"{analytics.collection} stays at its replica")
        return
    yield Finding(
        Level.FAIL,
        "analytics.collection",
        f"the rule for {decides.match} replicates {analytics.collection}: every region's events would be "
        "written to all the others",
        (
            f"# in the config, under collections, before the rule for {decides.match}:",
            f'- {{match: "{stored}", mode: local}}',
        ),
    )


def _locations(fleet: Fleet) -> Iterator[Finding]:
    for replica in fleet.replicas.values():
        location = replica.location
        if not _REGION.fullmatch(location) and not fleet.emulated:
            yield Finding(
                Level.WARN,
                f"{replica.id} location",
                f"'{location}' does not look like a region of Google Cloud{_suggested(location)}",
                ("gcloud firestore locations list",),
            )


def _suggested(location: str) -> str:
    area, _, rest = location.partition("-")
    number = rest.lstrip("abcdefghijklmnopqrstuvwxyz-")
    close = difflib.get_close_matches(rest.removesuffix(number), _SIDES, n=1)
    areas = difflib.get_close_matches(area, _AREAS, n=1)
    found = f"{areas[0]}-{close[0]}{number}" if areas and close else ""
    return f"; did you mean '{found}'?" if _REGION.fullmatch(found) else ""

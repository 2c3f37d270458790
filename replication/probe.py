"""What a probe of a fleet has found: for each pair of replicas when a change arrived, or why it may not have.

A probe writes one document at each source and reads it at each target. A change passes the source's trigger,
capture, the topic, the target's subscription and the target's worker. The pairs share those parts, so the ones
that work show which parts of the others are not at fault:

    something of the source arrived | something arrived at the target | so the fault is
    --------------------------------+---------------------------------+-------------------------------------
    no                              | yes                             | before the topic: trigger or capture
    yes                             | no                              | the target's worker
    yes                             | yes                             | neither: this change is late
    no                              | no                              | either, unless the source's own worker
                                    |                                 | has recorded the probe's delete: then
                                    |                                 | the target's worker
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from replication.errors import ConfigError
from replication.fleet.model import Fleet, Mode

COLLECTION = "_firefleet_probe"
"""A separate collection, so that no application's triggers, indexes or rules see a probe."""

Pair = tuple[str, str]
"""Source and target replica."""


class Cause(StrEnum):
    """Why a change did not arrive."""

    WRITE = "write"
    READ = "read"
    CAPTURE = "capture"
    WORKER = "worker"
    LATE = "late"
    EITHER = "capture-or-worker"


@dataclass(frozen=True, slots=True)
class Missing:
    """The likely cause for one pair, and the command that shows or fixes it."""

    cause: Cause
    text: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a probe saw.

    `lags_us` has the pairs whose change arrived, in microseconds from commit to commit. `unwritten` and
    `unread` have an error's text by replica. `recorded` are sources whose own worker left a tombstone for the
    probe's delete, which proves their trigger, capture and worker.
    """

    lags_us: Mapping[Pair, int]
    unwritten: Mapping[str, str]
    unread: Mapping[str, str]
    recorded: frozenset[str] = frozenset()


def pairs(fleet: Fleet, chosen: Sequence[str] = ()) -> list[Pair]:
    """All pairs, or those from or to the `chosen` replicas; raises `ConfigError` if there are none."""
    for replica in chosen:
        fleet.replica(replica)
    if len(fleet.replicas) < 2:
        raise ConfigError("the fleet has one replica, so no change has anywhere to go; add another replica")
    return [
        (source, target)
        for source in fleet.replicas
        for target in fleet.replicas
        if source != target and (not chosen or source in chosen or target in chosen)
    ]


def check_collection(fleet: Fleet, collection: str) -> None:
    """Raise `ConfigError` unless every replica's writes to a top-level collection are replicated."""
    if not collection or "/" in collection:
        raise ConfigError(f"--collection: '{collection}' is not a top-level collection; write {COLLECTION}")
    path = f"{collection}/probe"
    if fleet.codec.owns(path):
        raise ConfigError(f"--collection: {collection} is firefleet's own; leave out --collection")
    rule = fleet.rule_for(path)
    if rule.mode is not Mode.MULTI_PRIMARY:
        raise ConfigError(
            f"the rule for {rule.match} makes {collection} {rule.mode}, so a probe there cannot reach every "
            f'replica; add {{match: "{collection}/{{probe}}", mode: multi-primary}} before that rule, or name '
            "a multi-primary collection with --collection"
        )


def missing(fleet: Fleet, wanted: Iterable[Pair], evidence: Evidence) -> dict[Pair, Missing]:
    """The likely cause for each of the `wanted` pairs whose change did not arrive."""
    return {pair: _missing(fleet, pair, evidence) for pair in wanted if pair not in evidence.lags_us}


def _missing(fleet: Fleet, pair: Pair, evidence: Evidence) -> Missing:
    source, target = pair
    if source in evidence.unwritten:
        return Missing(
            Cause.WRITE, f"cannot write at {source}: {evidence.unwritten[source]}", "firefleet check"
        )
    if target in evidence.unread:
        return Missing(Cause.READ, f"cannot read at {target}: {evidence.unread[target]}", "firefleet check")
    left = any(one == source for one, _ in evidence.lags_us) or source in evidence.recorded
    reached = any(one == target for _, one in evidence.lags_us) or target in evidence.recorded
    match left, reached:
        case False, True:
            return _capture(fleet, source)
        case True, False:
            return Missing(
                Cause.WORKER,
                f"nothing arrived at {target}: its worker is not running, or is behind",
                f"firefleet replicate --replica {target}",
            )
        case True, True:
            return Missing(
                Cause.LATE,
                f"other changes of {source} and to {target} arrive: this one is late or dead-lettered",
                "firefleet probe --timeout 120s",
            )
        case _:
            return Missing(
                Cause.EITHER,
                f"nothing left {source} and nothing arrived at {target}: look at "
                f"{_trigger(fleet, source)}, capture, and the worker of {target}",
                "firefleet check",
            )


def _capture(fleet: Fleet, source: str) -> Missing:
    text = f"no event of {source} reached the others: {_trigger(fleet, source)} is missing, or capture fails"
    # Only an emulator's triggers are `provision`'s to register.
    emulated = fleet.replica(source).emulator_host is not None
    return Missing(Cause.CAPTURE, text, "firefleet provision" if emulated else "firefleet check")


def _trigger(fleet: Fleet, source: str) -> str:
    replica = fleet.replica(source)
    kind = "the emulator's trigger" if replica.emulator_host is not None else "the Eventarc trigger"
    return f"{kind} of database {replica.database}"

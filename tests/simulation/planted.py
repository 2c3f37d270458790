"""Planted bugs, each with the histories it is hunted in: proof that the simulation finds faults.

The knobs are those in which a fault matters; a hunt stops at the first history that breaks an oracle. Rules
that back each other up are planted together, or named with the oracle that sees it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.simulation import faults
from tests.simulation.faults import Plant
from tests.simulation.oracles import judge, nothing_raised
from tests.simulation.runner import live

TRIES_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Fault:
    """A planted bug: `knobs` are those of its hunt; `note` says what it was planted with, or who sees it."""

    name: str
    plant: Plant
    knobs: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


class Found(NamedTuple):
    """The seed that found a fault, after how many histories, and the oracle it broke."""

    seed: int
    tries: int
    oracle: str
    what: str


def fault_named(name: str) -> Fault:
    """The planted bug of that name."""
    return next(fault for fault in FAULTS if fault.name == name)


def hunt_named(name: str) -> tuple[str, Found | None]:
    """Hunt the fault of that name."""
    return name, hunt(fault_named(name))


def hunt(fault: Fault, *, tries_max: int = TRIES_MAX, start: int = 0) -> Found | None:
    """Plant a fault and live histories until one breaks an oracle; None if none does."""
    with fault.plant():
        for seed in range(start, start + tries_max):
            wrong = judge(live(seed, forced=fault.knobs))
            if not wrong:
                continue
            if wrong[0][0] == nothing_raised.__name__:
                # It no longer fits the core, and must not pass for found.
                raise RuntimeError(f"the fault {fault.name!r} is badly planted: {wrong[0][1]}")
            return Found(seed, seed - start + 1, *wrong[0])
    return None


# ── the list ──────────────────────────────────────────────────────────────────────────────────────────────────

_PLAIN = {
    "policy": "lww",
    "on_delete": "lww",
    "cursed": 0,
    "sealed_forgeries": False,
    "dead": False,
    "wallets": 0,
}
_STRAIGHT = _PLAIN | {"skew_us": 0, "whole_seconds": False}
_LARGE_BATCHES = {
    "orders": 1,
    "batch": 10,
    "replicas": 3,
    "operations": 12,
    "capture_weight": 60,
    "worker_weight": 10,
    "crashes": 0,
    "unknown_writes": 0,
}
_UPDATES = {
    "orders": 1,
    "notes": 0,
    "updates": 30,
    "sets": 1,
    "deletes": 0,
    "copies": 0,
    "forgeries": 0,
    "write_backs": 0,
    "operations": 20,
    "tick_us": 5_000,
    "capture_weight": 30,
    "worker_weight": 100,
}
_STALE = {"write_backs": 12, "reads": 10}
# One document, read at any replica and written back: writes that had seen the same have the same stamp.
_REVERTS = {
    "orders": 1,
    "replicas": 3,
    "operations": 20,
    "tick_us": 5_000,
    "sets": 2,
    "updates": 10,
    "deletes": 0,
    "reads": 10,
    "write_backs": 20,
    "cross_reads": True,
}

FAULTS: tuple[Fault, ...] = (
    Fault(
        "raw clock instead of the stamp",
        faults.raw_clock,
        _PLAIN | _UPDATES | {"skew_us": 20_000_000},
        "replicas stay equal without it; the oracle on what comes back sees it",
    ),
    Fault(
        "no dot in the order",
        faults.no_dot_in_the_order,
        _PLAIN | _REVERTS | {"skew_us": 140_000_000},
        "planted with no digest in the order, which decides where the dot does not",
    ),
    Fault("no order for equal clocks", faults.no_order_for_equal_clocks, _PLAIN | {"orders": 1}),
    Fault(
        "a delete's dot is its event's time",
        faults.event_time_as_a_deletes_dot,
        _STRAIGHT | {"deletes": 12, "orders": 1},
    ),
    Fault(
        "never supersedes",
        faults.never_supersedes,
        {"policy": "precedence", "on_delete": "update-wins", "deletes": 12},
    ),
    Fault(
        "uncaptured local writes unseen",
        faults.uncaptured_writes_unseen,
        _STRAIGHT | {"orders": 1, "updates": 10},
    ),
    Fault(
        "no digest",
        faults.together(faults.no_digest, faults.no_base),
        _STRAIGHT | {"orders": 1, "updates": 10},
        "planted with no base, which tells most updates from echoes too",
    ),
    Fault("no seal", faults.no_seal, _STRAIGHT | {"forgeries": 12, "orders": 2}),
    Fault(
        "the seal leaves out the path",
        faults.seal_without_the_path,
        _STRAIGHT | {"copies": 12, "reads": 10, "orders": 2},
    ),
    Fault(
        "drift measured by the reader's clock",
        faults.drift_by_the_readers_clock,
        _PLAIN | {"skew_us": 140_000_000},
        "with a third of the limit, which the skew of these histories then passes",
    ),
    Fault("no base", faults.no_base, _STRAIGHT | _STALE | {"orders": 1, "tick_us": 5_000}),
    Fault(
        "no time limit for echoes",
        faults.no_time_limit_for_echoes,
        _STRAIGHT | _STALE | {"orders": 1, "deletes": 12},
    ),
    Fault("echoes published", faults.echoes_published, _STRAIGHT),
    Fault("a tombstone forgets its bases", faults.bases_forgotten, _STRAIGHT | {"deletes": 12}),
    Fault("no heal", faults.no_heal, _PLAIN | {"orders": 1}),
    Fault(
        "tombstone not sent to its origin", faults.tombstone_not_sent_to_its_origin, _STRAIGHT | {"deletes": 12}
    ),
    Fault("merges not published", faults.merges_not_published, _PLAIN | {"orders": 1}),
    Fault(
        "no push-back",
        faults.together(faults.no_push_back, faults.merges_not_published),
        _PLAIN | {"orders": 1},
        "planted with merges not published: it tells again what they told",
    ),
    Fault("no tombstone", faults.no_tombstone, _STRAIGHT | {"deletes": 12, "orders": 1}),
    Fault("no create guard", faults.no_create_guard, _STRAIGHT | {"deletes": 12, "orders": 1}),
    Fault("overwrites without a condition", faults.unconditional_overwrites, _STRAIGHT | {"orders": 1}),
    Fault("a failed precondition ignored", faults.failed_precondition_ignored, _STRAIGHT | {"orders": 1}),
    Fault("status ABORTED ignored", faults.aborted_ignored, _STRAIGHT | {"aborted_writes": 100}),
    Fault(
        "unknown outcomes taken for landed",
        faults.unknown_taken_for_landed,
        _STRAIGHT | {"unknown_writes": 150},
    ),
    Fault(
        "writes sent after the deadline",
        faults.writes_after_the_deadline,
        _STRAIGHT | {"late_writes": 150, "jumps": 6},
    ),
    Fault("a batch folded by resolve", faults.folded_by_resolve, _PLAIN | _LARGE_BATCHES),
    Fault("acknowledged before written", faults.acknowledged_before_written, _STRAIGHT | {"crashes": 25}),
    Fault(
        "conflicts logged after the write",
        faults.conflicts_logged_after_the_write,
        _STRAIGHT | {"crashes": 60, "orders": 1},
    ),
    Fault("conflicts not logged", faults.conflicts_not_logged, _STRAIGHT | {"orders": 1}),
    Fault("poison dropped", faults.poison_dropped, {"poison": 2}),
    Fault("lag by the worker's clock", faults.lag_by_the_wrong_clock, _PLAIN),
    Fault(
        "violations wait in the worker",
        faults.violations_wait_in_the_worker,
        {"wallets": 2, "dead": True, "cursed": 0},
    ),
    Fault("violations stand", faults.violations_stand, {"wallets": 2, "dead": False}),
    Fault(
        "misplaced writes applied",
        faults.misplaced_writes_applied,
        {"wallets": 2, "misplacing_capture": True, "dead": False},
    ),
)

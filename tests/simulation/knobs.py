"""What kind of history a seed makes: drawn per seed, so that each history has some faults and lacks others.

Swarm testing (Groce et al. 2012, https://doi.org/10.1145/2338965.2336763): histories with every fault at once
hide as many bugs as histories with none, because one fault covers up for another.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from conflict.policies import Custom, FieldRules, LastWriteWins, Precedence
from conflict.resolve import Candidate, OnDelete, Policy
from replication.fleet.model import Fleet, Mode, Replica, Rule

REPLICAS = ("eu", "us", "apac", "mena", "sa")
PRIMARY = "eu"
STATES = ("pending", "approved", "rejected", "refunded")

# Fixed paths, so that fleets, and what is cached per path, are shared by all histories.
ORDERS = tuple(f"orders/{number}" for number in range(1, 7))
WALLETS = ("wallets/1", "wallets/2")
NOTES = ("notes/1",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """One seed's choices. Rates are per mille of the occasions; times in µs."""

    # The fleet
    replicas: int = 3
    policy: str = "lww"
    on_delete: str = "lww"
    secret: bool = True
    orders: int = 2
    wallets: int = 0
    notes: int = 0

    # How long, and how fast time runs
    operations: int = 20
    tick_us: int = 5_000
    skew_us: int = 0
    whole_seconds: bool = False
    unchanged_fires: bool = False

    # Who moves how often
    capture_weight: int = 30
    worker_weight: int = 60
    chaos_weight: int = 4
    workers: int = 2
    batch: int = 10
    filters: bool = True

    # Applications: weights of what they do
    sets: int = 10
    updates: int = 10
    deletes: int = 5
    reads: int = 6
    write_backs: int = 0
    copies: int = 0
    forgeries: int = 0
    sealed_forgeries: bool = False
    cross_reads: bool = False

    # Faults on the way
    late_captures: int = 0
    duplicate_events: int = 0
    capture_failures: int = 0
    duplicate_deliveries: int = 0
    transient_reads: int = 0
    unknown_writes: int = 0
    late_writes: int = 0
    failed_publishes: int = 0
    failed_acks: int = 0
    aborted_writes: int = 0
    crashes: int = 0
    extends: bool = True
    misplacing_capture: bool = False
    cursed: int = 0

    # What chaos does: weights
    jumps: int = 2
    outages: int = 0
    replays: int = 0
    poison: int = 0
    dead: bool = False

    @property
    def lww(self) -> bool:
        """Whether the last write is to win, by one clock, in every multi-primary collection."""
        return (
            self.policy == "lww"
            and self.on_delete == "lww"
            and not self.skew_us
            and not self.whole_seconds
            and not self.sealed_forgeries
            and not self.cursed
        )

    @property
    def ids(self) -> tuple[str, ...]:
        """The replicas."""
        return REPLICAS[: self.replicas]

    @property
    def paths(self) -> tuple[str, ...]:
        """The documents."""
        return ORDERS[: self.orders] + WALLETS[: self.wallets] + NOTES[: self.notes]


def draw_knobs(seed: int, forced: Mapping[str, Any] | None = None) -> Knobs:
    """The knobs of a seed; `forced` are set whatever the seed says."""
    chosen = _draw(random.Random(seed))
    if forced:
        chosen.update(forced)
    return Knobs(**chosen)


def _draw(rng: random.Random) -> dict[str, Any]:
    def some(probability: float, *values: int) -> int:
        return rng.choice(values) if rng.random() < probability else 0

    def often(probability: float) -> bool:
        return rng.random() < probability

    dead = often(0.08)
    return {
        "replicas": rng.choice((3, 3, 3, 3, 4, 5)),
        "policy": rng.choice(
            ("lww", "lww", "lww", "lww", "lww", "precedence", "field-rules", "lawful", "raising", "unlawful")
        ),
        "on_delete": rng.choice(("lww", "lww", "lww", "lww", "delete-wins", "update-wins")),
        "secret": often(0.8),
        "orders": rng.choice((1, 1, 2, 3, 5)),
        "wallets": some(0.2, 1, 2),
        "notes": some(0.05, 1),
        "operations": rng.choice((4, 4, 6, 8, 8, 12, 20)),
        "tick_us": rng.choice((300, 5_000, 5_000, 100_000, 1_000_000)),
        "skew_us": some(0.4, 2_000, 1_000_000, 20_000_000, 140_000_000),
        "whole_seconds": often(0.1),
        "unchanged_fires": often(0.1),
        "capture_weight": rng.choice((4, 15, 30)),
        "worker_weight": rng.choice((20, 60, 100)),
        "workers": rng.choice((2, 2, 3)),
        "batch": rng.choice((1, 3, 10, 10)),
        "filters": often(0.7),
        "sets": rng.choice((2, 10)),
        "updates": rng.choice((0, 10)),
        "deletes": some(0.8, 2, 6, 12),
        "write_backs": some(0.5, 4, 12),
        "copies": some(0.25, 4),
        "forgeries": some(0.2, 4),
        "cross_reads": often(0.3),
        "sealed_forgeries": often(0.04),
        "late_captures": some(0.4, 50, 300),
        "duplicate_events": some(0.4, 50, 200),
        "capture_failures": some(0.3, 50, 200),
        "duplicate_deliveries": some(0.3, 50, 200),
        "transient_reads": some(0.3, 20, 100),
        "unknown_writes": some(0.4, 30, 150),
        "late_writes": some(0.3, 30, 150),
        "failed_publishes": some(0.3, 30, 100),
        "failed_acks": some(0.3, 30, 100),
        "aborted_writes": some(0.2, 30, 100),
        "crashes": some(0.3, 5, 25),
        "extends": often(0.7),
        "misplacing_capture": often(0.2),
        "cursed": some(0.06, 60),
        "chaos_weight": rng.choice((2, 6)),
        "outages": some(0.3, 2),
        "replays": some(0.3, 2),
        "poison": some(0.2, 1),
        "dead": dead,
    }


NAMES = tuple(field.name for field in fields(Knobs))


@lru_cache(maxsize=512)
def fleet_of(*, replicas: int, policy: str, on_delete: str, secret: bool, misconfigured: bool = False) -> Fleet:
    """The fleet of a history. `misconfigured`: an older config, in which wallets have no primary."""
    wallets = Rule(match="wallets/{id}", mode=Mode.SINGLE_PRIMARY, primary=PRIMARY)
    if misconfigured:
        wallets = Rule(match="wallets/{id}")
    return Fleet(
        project="sim",
        topic="changes",
        secret=b"a secret of the simulation's own" if secret else None,
        replicas={
            name: Replica(id=name, project="sim", database=name, location=name) for name in REPLICAS[:replicas]
        },
        rules=(
            wallets,
            Rule(match="notes/{id}", mode=Mode.LOCAL),
            Rule(match="{document=**}", policy=_policy(policy), on_delete=OnDelete(on_delete)),
        ),
    )


def _policy(name: str) -> Policy:
    match name:
        case "lww":
            return LastWriteWins()
        case "precedence":
            return Precedence("status", STATES)
        case "field-rules":
            return FieldRules({"n": "max", "tags": "union", "status": "min"})
        case "lawful":
            return Custom("custom: largest n", _largest)
        case "raising":
            return Custom("custom: raises", _raising)
        case "unlawful":
            return Custom("custom: depends on the order", _unlawful)
        case _:
            raise ValueError(f"no policy {name!r}")


def _largest(a: Candidate, b: Candidate) -> Candidate:
    def rank(side: Candidate) -> Any:
        return (side.fields.get("n", 0), side.version.total)

    return a if rank(a) > rank(b) else b


def _raising(a: Candidate, b: Candidate) -> Candidate:
    if a.fields.get("n", 0) == b.fields.get("n", 0):
        return a if a.version.total > b.version.total else b
    raise RuntimeError("this policy cannot decide")


def _unlawful(a: Candidate, b: Candidate) -> Candidate:
    return a

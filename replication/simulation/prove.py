"""Prove an application's own policy, in its tests: its laws, then whole fleets in simulation.

    from replication.simulation import prove

    def our_policy(a, b):
        # Each is a `conflict.resolve.Candidate`. Answer one of them, or a mapping of new fields.
        more = a.fields.get("votes", 0) - b.fields.get("votes", 0)
        return a if (more, a.version.total) > (0, b.version.total) else b

    def test_our_policy_is_safe():
        prove(our_policy, examples=[{"votes": 1}, {"votes": 2, "tags": ["a"]}])

`conflict.laws` compares answers to each other. Here the policy decides real conflicts: three replicas in
memory, written concurrently, and the core that runs in production. Changes are captured late and delivered in
any order, some of them twice; workers die and lose answers. What the applications write, and when, follows
from the seed alone. The same writes are then delivered in several orders.

A policy is safe if it never fails, all replicas end equal, and every order ends with the same documents. Where
documents are deleted the order may decide (see "Not promised" in ARCHITECTURE.md); the replicas must be equal
all the same.
"""

from collections.abc import Sequence

from conflict.laws import Decide, Timer, assert_lawful
from conflict.policies import Custom
from conflict.resolve import Fields, OnDelete
from replication.fleet.model import Fleet, Replica, Rule
from replication.simulation.applications import PATHS, REPLICAS, AppWrite, draw_rounds
from replication.simulation.dice import Dice
from replication.simulation.trial import Bodies, Trial, Unsafe, shown

HISTORIES = 50
ORDERS = 3
"""Orders in which the changes of one history are delivered."""


def prove(
    policy: Decide,
    examples: Sequence[Fields],
    *,
    on_delete: OnDelete = OnDelete.LWW,
    histories: int = HISTORIES,
    seed: int = 1,
    timer: Timer | None = None,
) -> None:
    """Check a policy's laws and let it decide in simulated fleets; raises `LawBroken` or `Unsafe`.

    `examples` are whole bodies, one of every shape the documents have; the histories write them and mixtures of
    them. The same `seed` gives the same histories. With `timer=time.perf_counter` a policy that takes more than
    a millisecond breaks a law too.
    """
    assert_lawful(policy, examples, timer=timer)
    simulate(policy, examples, on_delete=on_delete, histories=histories, seed=seed)


def simulate(
    policy: Decide,
    examples: Sequence[Fields],
    *,
    on_delete: OnDelete = OnDelete.LWW,
    histories: int = HISTORIES,
    seed: int = 1,
) -> int:
    """Only the simulated fleets; how many conflicts the policy has decided there. Raises `Unsafe`."""
    fleet = _fleet(policy, on_delete)
    conflicts = 0
    for history in range(seed, seed + histories):
        rounds = list(draw_rounds(examples, _dice(history, 0)))
        first: list[Bodies] = []
        for order in range(1, ORDERS + 1):
            trial = Trial(fleet, _dice(history, order), f"seed {history}")
            ends = [trial.live(number, writes) for number, writes in enumerate(rounds, 1)]
            first = first or ends
            _compare(rounds, first, ends, f"seed {history}")
            conflicts += trial.conflicts
    return conflicts


def _fleet(policy: Decide, on_delete: OnDelete) -> Fleet:
    rule = Rule(match="{document=**}", policy=Custom("proved", policy), on_delete=on_delete)
    return Fleet(
        project="proof",
        topic="changes",
        replicas={name: Replica(id=name, project="proof", database=name, location=name) for name in REPLICAS},
        rules=(rule,),
    )


def _dice(history: int, order: int) -> Dice:
    return Dice(history << 8 | order)


def _compare(
    rounds: Sequence[Sequence[AppWrite]], first: Sequence[Bodies], other: Sequence[Bodies], where: str
) -> None:
    deleted: set[str] = set()
    for number, (writes, one, two) in enumerate(zip(rounds, first, other, strict=True), 1):
        deleted |= {write.path for write in writes if write.fields is None}
        for path in PATHS:
            if path not in deleted and one[path] != two[path]:
                raise Unsafe(
                    f"the order of delivery decides what is kept of {path} ({where}, round {number}):\n"
                    f"  {shown(one[path])}\n  {shown(two[path])}"
                )

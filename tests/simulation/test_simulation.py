"""The real core lives through thousands of histories; `FIREFLEET_SEEDS` says how many (default 2,000)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.oracles import judge
from tests.simulation.planted import FAULTS, fault_named, hunt
from tests.simulation.runner import live, parse_ranges, ranges, run_many, run_seeds
from tests.simulation.shrink import shrink
from tests.support.polling import PATIENCE_S

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("FIREFLEET_SEEDS", "2000"))
TRACED = """
import hashlib
from tests.simulation.runner import live
trace = []
for seed in range(12):
    live(seed, trace=trace)
print(hashlib.sha256("\\n".join(trace).encode()).hexdigest())
"""


@pytest.mark.timeout(max(3600, 6 * SEEDS))
def test_no_history_breaks_a_promise_and_everything_worth_reaching_is_reached() -> None:
    summary = run_many(0, SEEDS)
    assert not summary.failures, "\n".join(map(str, summary.failures))
    assert summary.histories == SEEDS
    if SEEDS >= 2000:
        assert not summary.unreached


def test_the_same_seed_gives_the_same_history() -> None:
    first: list[str] = []
    second: list[str] = []
    for seed in range(10):
        assert live(seed, trace=first) == live(seed, trace=second)
    assert len(first) > 100
    assert first == second


def test_the_same_seed_gives_the_same_history_in_another_process() -> None:
    """Nothing depends on the order of sets, of protobuf maps, or on addresses."""
    answers = {
        subprocess.run(
            [sys.executable, "-c", TRACED],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        ).stdout
        for salt in ("0", "1", "4711")
    }
    assert len(answers) == 1


def test_what_is_traced_does_not_change_the_history() -> None:
    assert live(11, trace=[]) == live(11)


def test_a_dead_primary_holds_up_nothing_but_its_violations() -> None:
    """Found by the simulation: a violation waited inside the worker, and the rest of its batch with it."""
    summary = run_seeds(range(150), {"dead": True, "wallets": 2, "orders": 2, "replicas": 3, "cursed": 0})
    assert not summary.failures, "\n".join(map(str, summary.failures))
    assert summary.sometimes["postponed"]


@pytest.mark.parametrize("seed", [1034097, 1035236])
def test_references_into_another_replica_converge(seed: int) -> None:
    """Found by the simulation: such a reference had another digest at the replica it points into."""
    assert judge(live(seed)) == []


@pytest.mark.parametrize("seed", [3005726, 3013524])
def test_the_longest_settlings_end(seed: int) -> None:
    """Five replicas in conflict over one document: the most messages any history took to come to rest."""
    assert judge(live(seed)) == []


def test_a_violation_that_changes_nothing_leaves_no_copy_without_the_primarys_dot() -> None:
    """Found by the simulation: written back without `_repl`, the copy gave way to whatever was replayed."""
    assert judge(live(102222)) == []


@pytest.mark.parametrize("seed", [11309, 38779, 88796, 121153, 187566])
def test_what_is_not_promised_is_not_asked_for(seed: int) -> None:
    """Judged wrongly once: clocks beyond the drift limit, and what no document can say that its writer knew."""
    assert judge(live(seed)) == []


# Those found within a few dozen histories; `python -m tests.simulation planted` hunts all.
SAMPLE = (
    "a tombstone forgets its bases",
    "acknowledged before written",
    "conflicts not logged",
    "drift measured by the reader's clock",
    "echoes published",
    "never supersedes",
    "no digest",
    "no seal",
    "no tombstone",
    "status ABORTED ignored",
    "tombstone not sent to its origin",
    "violations stand",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_planted_bug_is_found(name: str) -> None:
    assert hunt(fault_named(name)) is not None


def test_planted_bugs_are_taken_out_again() -> None:
    """After a hunt the core is as it was: the seed that found the fault breaks nothing."""
    for fault in FAULTS:
        with fault.plant():
            pass
    fault = fault_named("conflicts not logged")
    found = hunt(fault)
    assert found is not None
    assert judge(live(found.seed, forced=fault.knobs)) == []


def test_a_failing_history_is_shrunk_to_one_that_fails_alike() -> None:
    fault = fault_named("conflicts not logged")
    found = hunt(fault)
    assert found is not None
    with fault.plant():
        steps = shrink(found.seed, forced=fault.knobs)
        assert steps is not None
        assert len(steps) < 30
        assert judge(live(found.seed, forced=fault.knobs, steps=steps))[0][0] == found.oracle


@pytest.mark.parametrize("steps", [[], [0], [0, 1, 2], [0, 2, 3, 4, 9]])
def test_steps_are_written_as_ranges_and_read_back(steps: list[int]) -> None:
    assert parse_ranges(ranges(steps)) == steps

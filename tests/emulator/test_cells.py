"""A matrix: each fault of the link to one replica's database, under each workload; nothing may be lost by any.

A fault's workloads run side by side, as in an application, and are judged one by one. By default three of the
six run; FIREFLEET_CELLS=all runs the whole matrix. What costs more than a minute, such as redelivery after a
kill, is in `python -m tests.emulator.soak`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conftest import require_emulators
from tests.emulator.judgement import Losers, faults, losers
from tests.emulator.proxy import Fault, Proxy
from tests.emulator.replicas import Replicas
from tests.emulator.workloads import WORKLOADS, Run
from tests.support.polling import eventually
from workers.local.fleet import LocalFleet

FAULTS = {
    "slow": Fault(delay=0.3),
    "cut": Fault(cut_after=20_000),
    "half_open": Fault(half_open=True),
}
ALL = os.environ.get("FIREFLEET_CELLS") == "all"
CHOSEN = tuple(WORKLOADS) if ALL else ("counters", "reborn", "large")
STEPS = 20
LASTS_S_MIN = 7.0
"""Longer than a worker waits for an answer (6 s at most), so that it has to decide without one."""
BEHIND = "us"
"""The replica whose database is behind the proxy."""


class Site:
    """A fleet of which one replica's database is reached through a proxy."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.fleet = stack.enter_context(LocalFleet(emulators="one", via=self._via))
        self.replicas = Replicas(self.fleet)

    def _via(self, replica: str, host: str) -> str:
        if replica != BEHIND:
            return host
        self.proxy = self._stack.enter_context(Proxy(host))
        return self.proxy.host


@pytest.fixture(scope="module")
def site(quick_to_start: None) -> Iterator[Site]:
    require_emulators()
    with ExitStack() as stack:
        yield Site(stack)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_link_loses_nothing_and_raises_nothing_from_the_dead(site: Site, fault: str) -> None:
    run = Run(workloads=CHOSEN, steps=STEPS, seed=1)
    _ = site.replicas.topic
    began = time.monotonic()
    with site.proxy.during(FAULTS[fault]):
        logs = run.write(fault, site.replicas.clients)
        eventually(lambda: time.monotonic() > began + LASTS_S_MIN and site.proxy.met >= 10, every=0.1)
        met = site.proxy.met
    contested = 0
    for workload, log in logs.items():
        prefix = f"{fault}_{workload}"
        held = site.replicas.equal(below=f"{prefix}/")
        assert faults(log, held, losers(site.replicas.clients.values(), prefix)) == [], workload
        # Without the conflict log the same end would be full of losses.
        contested += len(faults(log, held, Losers()))
    print(f"\n{fault}: {sum(map(len, logs.values()))} writes, met {met} times, {contested} losers in the log")
    assert contested > 0
    site.replicas.at_rest(seconds=3)
    assert site.replicas.differences(below=fault) == {}
    assert site.fleet.dead_letters() == []

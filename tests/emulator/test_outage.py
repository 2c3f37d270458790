"""A region that is down for minutes: what waits for it is held, and nothing is given up."""

import pytest

from tests.emulator.outage import Outage, count
from tests.emulator.replicas import Replicas
from tests.support.polling import eventually


@pytest.mark.timeout(1800)
def test_a_database_that_hangs_for_five_minutes_gets_everything_and_nothing_is_buried(outage: Outage) -> None:
    """Longer than any deadline and the circuit of any retry: held, extended, never released or given up."""
    fleet = outage.fleet
    eu, us = fleet.client("eu"), fleet.client("us")
    [worker] = fleet.workers["us"]
    outage.last(300)
    eventually(lambda: worker.get("/ready")[0] == 503)
    assert worker.get("/live")[0] == 200
    assert worker.running
    eu.document("outage/0").delete()
    outage.end()
    replicas = Replicas(fleet)
    held = replicas.equal(below="outage/")
    assert (len(held), count(us, "outage")) == (499, 499)
    replicas.at_rest(seconds=2)
    found = replicas.everything(below="outage/")["us"].values()
    assert all(stored.create_time == stored.update_time for stored in found), "written once"
    assert fleet.dead_letters() == []
    assert worker.running

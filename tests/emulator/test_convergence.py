"""The main path as a whole: an application writes to all replicas at full speed, and they end equal."""

from functools import partial

from tests.emulator.application import Application, Size, Write, kept, of
from tests.emulator.replicas import Replicas
from tests.support.polling import eventually
from workers.local.fleet import LocalFleet

FULL = Size()
SMALL = Size(contested=15, own=12, hot=3)
"""Also written before all else: Java runs a program's first seconds many times slower than the rest."""


def write(fleet: LocalFleet, name: str, size: Size) -> list[Write]:
    clients = {replica: partial(fleet.client, replica) for replica in fleet.fleet.replicas}
    return Application(name, clients, seed=7).run(size)


def converge(fleet: LocalFleet, replicas: Replicas, size: Size) -> tuple[list[Write], set[str]]:
    """Write, and wait until all is as it must be: what was written, and the documents that were in conflict."""
    buried = len(fleet.dead_letters())
    write(fleet, "warm_up", SMALL)
    replicas.equal(below="warm_up")

    log = write(fleet, "shop", size)
    eventually(partial(replicas.agree_on, latest(log)), every=0.4)
    held = replicas.equal(below="shop_")
    conflicts = {path for path in replicas.conflicts() if path.startswith("shop_")}
    # Most of the documents can be judged by the log alone.
    assert len(kept(log)) > len({write.path for write in log}) * 3 / 4
    assert {path: held.get(path) for path, one in kept(log).items() if not one.matches(held.get(path))} == {}
    assert_arrives(replicas, "shop_sentinel/last")
    replicas.at_rest()
    assert replicas.differences(below="shop_") == {}
    assert len(fleet.dead_letters()) == buried
    return log, conflicts


def latest(log: list[Write]) -> set[str]:
    """The documents written last: cheap to look at, and behind all others in every queue."""
    return {write.path for write in sorted(log, key=lambda write: write.time)[-40:]}


def assert_arrives(replicas: Replicas, path: str) -> None:
    first, *others = replicas.clients.values()
    first.document(path).set({"last": True})
    eventually(lambda: all(client.document(path).get().exists for client in others), every=0.1)


def test_replicas_are_equal_and_hold_the_last_writes_after_an_application_stops(
    fleet: LocalFleet, replicas: Replicas
) -> None:
    log, conflicts = converge(fleet, replicas, FULL)
    assert len(log) >= 2000
    assert len(of(log, "delete")) >= 300
    assert len(conflicts) >= 200


def test_replicas_are_equal_with_the_emulators_triggers_straight_to_capture(quick_to_start: None) -> None:
    with LocalFleet(direct_triggers=True, secret="a secret of this fleet alone") as fleet:
        log, conflicts = converge(fleet, Replicas(fleet), SMALL)
    assert of(log, "delete")
    assert conflicts

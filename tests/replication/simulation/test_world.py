"""The simulated world comes to rest, survives its faults, and gives each process its own configuration."""

from collections.abc import Callable
from typing import Any

import pytest

from replication.apply.effects import Effect
from replication.documents.wire import MICROS, Value
from replication.effects import Commit, Publish
from replication.errors import Transient
from replication.fleet.model import Fleet, Mode, Replica, Rule
from replication.ports import Message
from replication.simulation.capture import Capture
from replication.simulation.clock import Clock
from replication.simulation.dice import Dice
from replication.simulation.driver import Driver
from replication.simulation.faults import Died, Faults
from replication.simulation.worker import LEASE_S, Worker
from replication.simulation.world import World

START_US = 1_750_000_000 * MICROS
PATH = "orders/1"


def fleet_of(*rules: Rule) -> Fleet:
    return Fleet(
        project="sim",
        topic="changes",
        replicas={name: Replica(id=name, project="sim", database=name, location=name) for name in ("eu", "us")},
        rules=rules or (Rule(match="{document=**}"),),
    )


def world_of(faults: Faults | None = None, fleet: Fleet | None = None) -> World:
    return World(fleet or fleet_of(), clock=Clock(START_US), dice=Dice(1), faults=faults)


def write(world: World, replica: str, text: str) -> None:
    world.databases[replica].set(PATH, {"x": Value(string_value=text)})


def settle(world: World, moves_max: int = 2_000) -> bool:
    return world.settle([*world.workers, world.capture], moves_max=moves_max)


def held(world: World) -> list[str | None]:
    found = [database.get(PATH) for database in world.databases.values()]
    return [document and document.fields["x"].string_value for document in found]


class Once(Faults):
    """One fault, the first time that `here` says so."""

    def __init__(self, here: Callable[[Any, Effect], bool], fault: Exception, *, before: bool) -> None:
        self.here, self.fault, self.first, self.struck = here, fault, before, False

    def before(self, process: Driver | Capture, effect: Effect) -> None:
        if self.first:
            self._strike(process, effect)

    def after(self, process: Driver | Capture, effect: Effect) -> None:
        if not self.first:
            self._strike(process, effect)

    def _strike(self, process: Driver | Capture, effect: Effect) -> None:
        if not self.struck and self.here(process, effect):
            self.struck = True
            raise self.fault


def commits(process: Any, effect: Effect) -> bool:
    return isinstance(process, Worker) and isinstance(effect, Commit)


def captures(process: Any, effect: Effect) -> bool:
    return isinstance(process, Capture) and isinstance(effect, Publish)


def test_without_faults_every_replica_has_the_write_and_nothing_is_left_to_do() -> None:
    world = world_of()
    write(world, "eu", "new")
    assert not world.at_rest()
    assert settle(world)
    assert world.at_rest()
    assert held(world) == ["new", "new"]


def test_a_world_that_still_moves_is_not_called_settled() -> None:
    world = world_of()
    write(world, "eu", "new")
    assert not settle(world, moves_max=3)


@pytest.mark.parametrize("before", [True, False])
def test_what_a_dead_worker_held_is_delivered_again_when_its_lease_has_run_out(before: bool) -> None:
    world = world_of(Once(commits, Died(), before=before))
    write(world, "eu", "new")
    assert settle(world)
    assert held(world) == ["new", "new"]
    assert world.clock.now > START_US + LEASE_S * MICROS


def test_a_write_whose_answer_is_lost_is_decided_again() -> None:
    world = world_of(Once(commits, Transient("the answer is lost"), before=False))
    write(world, "eu", "new")
    assert settle(world)
    assert held(world) == ["new", "new"]


@pytest.mark.parametrize(("before", "published"), [(True, 1), (False, 2)])
def test_an_event_comes_again_whose_capture_was_not_answered(before: bool, published: int) -> None:
    world = world_of(Once(captures, Transient("no answer"), before=before))
    write(world, "eu", "new")
    assert settle(world)
    assert world.published == published
    assert held(world) == ["new", "new"]


def test_a_delete_is_replicated_by_the_tombstone_that_capture_reads() -> None:
    world = world_of()
    write(world, "eu", "new")
    assert settle(world)
    world.clock.advance(60 * MICROS)
    world.databases["us"].delete(PATH)
    assert settle(world)
    assert held(world) == [None, None]


def test_each_process_has_a_configuration_of_its_own() -> None:
    """Capture believes that the collection is local; the workers would replicate it."""

    class Older(World):
        def new_capture(self) -> Capture:
            return Capture(self, fleet_of(Rule(match="{document=**}", mode=Mode.LOCAL)))

    world = Older(fleet_of(), clock=Clock(START_US), dice=Dice(1))
    write(world, "eu", "new")
    assert settle(world)
    assert held(world) == ["new", None]
    world.capture.fleet = world.fleet
    write(world, "eu", "newer")
    assert settle(world)
    assert held(world) == ["newer", "newer"]


def test_dead_letters_are_kept() -> None:
    world = world_of()
    world.publish(Message(b"\xff", {"replica": "eu", "kind": "write"}))
    assert settle(world)
    assert [letter.attributes["reason"] for letter in world.dead_letters] == ["undecodable"]


def test_a_skewed_clock_runs_with_the_worlds() -> None:
    clock = Clock(START_US)
    skewed = clock.skewed(-5)
    clock.advance(7)
    assert (clock.read(), skewed()) == (START_US + 7, START_US + 2)

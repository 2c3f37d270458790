"""Live a history of a seed, and many of them."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from replication.documents.wire import MICROS
from tests.simulation.analytics.worker import Worker
from tests.simulation.analytics.world import World, draw

MOVES = 400
REST_MOVES_MAX = 4_000
"""Moves until everything must have come to rest once nothing fails any more."""
REACHED = (
    *("held", "copy", "duplicate", "throttled", "closed"),
    *(f"{fault} write" for fault in ("lost", "unknown", "half", "late", "busy")),
    *(f"{fault} {what}" for fault in ("lost", "unknown", "refused") for what in ("letter", "copy")),
    *("lost pull", "lost acknowledge", "lost acknowledge's answer", "lost extend", "lost read"),
    *("crash", "stop", "stopped", "Stopping", "ProgramFault", "pause", "buffer full"),
    *("request refused", "parts side by side", "dead letters", "observed refusals"),
)
"""What must happen in many histories: a simulation in which nothing goes wrong proves nothing."""


class Failure(NamedTuple):
    """A seed whose history broke a rule."""

    seed: int
    rule: str
    text: str


def live(seed: int, **forced: Any) -> World:
    """The history of a seed, with some knobs forced; `wrong` of the world has the rules it broke."""
    world = World(seed, replace(draw(seed), **forced))
    workers = [Worker(world) for _ in range(world.knobs.workers)]
    for _ in range(MOVES):
        number = world.dice.below(len(workers))
        worker = workers[number]
        if _move(world, worker):
            workers[number] = Worker(world)
        worker.check_bounds()
        if world.wrong:
            return world
    _rest(world, workers)
    return world


def _move(world: World, worker: Worker) -> bool:
    """One move of the world or of a worker; whether another worker takes its place."""
    dice, knobs = world.dice, world.knobs
    if dice.chance(knobs.crashes):
        world.seen["crash"] += 1
        worker.crash()
        return True
    if not worker.stopping and dice.chance(knobs.stops):
        world.seen["stop"] += 1
        worker.stop()
    match dice.weighted((("step", 60), ("pull", 10), ("take", 10), ("flush", 6), ("time", 8), ("publish", 6))):
        case "step":
            worker.step()
        case "pull":
            worker.pull()
        case "take":
            worker.take()
        case "flush":
            worker.flush()
        case "time":
            # Mostly seconds; sometimes so long that deliveries come again while they are held.
            world.now += MICROS * (dice.below(90) if dice.chance(60) else dice.below(4))
            worker.deliveries.extend()
        case "publish":
            world.publish(1 + dice.below(6))
    if worker.stopping and worker.idle:
        world.seen["stopped"] += 1
        worker.check_ended()
        return True
    return False


def _rest(world: World, workers: list[Worker]) -> None:
    world.calm = True
    for _ in range(REST_MOVES_MAX):
        world.now += MICROS
        for number, worker in enumerate(workers):
            if worker.stopping and worker.idle:
                worker.check_ended()
                workers[number] = Worker(world)
                continue
            worker.deliveries.extend()
            worker.pull()
            worker.take()
            worker.flush()
            while worker.step():
                pass
        if not world.subscription.backlog and all(worker.idle for worker in workers):
            break
    else:
        world.broken("comes_to_rest", f"{world.subscription.backlog} messages are left")
    for worker in workers:
        worker.check_ended()
    world.judge()


def quiet() -> None:
    """Log no warnings: what fails on purpose would fill the log."""
    logging.disable(logging.WARNING)


def run_many(seeds: Iterable[int], **forced: Any) -> tuple[list[Failure], Counter[str]]:
    """The seeds that break a rule, and what happened in all."""
    failures: list[Failure] = []
    seen: Counter[str] = Counter()
    for seed in seeds:
        world = live(seed, **forced)
        failures += [Failure(seed, *wrong) for wrong in world.wrong[:1]]
        seen += world.seen
    return failures, seen

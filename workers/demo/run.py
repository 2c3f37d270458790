"""The demo's course: start a fleet, let the shop open and trade, wait until all is at rest, prove.

What is going on is handed to a view as a `Frame`, several times a second.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from replication.errors import Interrupted
from workers.demo.backend import REPLICAS, Backend, Running
from workers.demo.proof import Decided, Proof, compare, example, why
from workers.demo.shop import Moment, Trade, Verb, plan_season
from workers.local.meters import Buckets, Flow

FRAME_S = 0.15
REST_S_MAX = 180.0
"""For the last change to be everywhere; a healthy fleet takes a second or two on a machine of its own."""
COMPARE_EVERY_S = 1.0


@dataclass(slots=True)
class Stage:
    """One part of the course. `total` is 0 where progress cannot be counted."""

    title: str
    total: int = 0
    done: int = 0
    detail: str = ""
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """What there is to see at one moment."""

    backend: str
    seed: int
    seconds: float
    stages: Sequence[Stage]
    flows: Sequence[Flow] = ()


class View(Protocol):
    """Shows frames; must be quick."""

    def show(self, frame: Frame) -> None:
        """Show what is going on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the demo is asked for. `open` starts the fleet; it gets a function to call with its current step."""

    backend: str
    reason: str
    changes: int
    seed: int
    replicating: bool
    open: Callable[[Callable[[str], None]], Backend]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it ended. `settled` is the time from the last write until all was at rest, in seconds."""

    order: Order
    writes: Counter[Verb]
    conflicting: int
    seconds: float
    settled: float
    proof: Proof
    shown: Decided | None
    shown_why: str
    flows: Sequence[Flow]
    outcomes: Counter[str]
    lag: Buckets


@dataclass(slots=True)
class _Course:
    """Keeps the stages and shows them."""

    order: Order
    view: View
    began: float = field(default_factory=time.monotonic)
    stages: list[Stage] = field(default_factory=list)
    fleet: Running | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @contextmanager
    def stage(self, title: str, *, total: int = 0) -> Iterator[Stage]:
        stage = Stage(title, total)
        self.stages.append(stage)
        self.show()
        yield stage
        stage.finished = True
        self.show()

    def show(self) -> None:
        flows = self.fleet.meters.flows() if self.fleet else ()
        self.view.show(Frame(self.order.backend, self.order.seed, self.seconds, tuple(self.stages), flows))

    def whereabouts(self) -> str:
        """Where it is and how far, in words."""
        if not self.stages:
            return "before anything was started"
        stage = self.stages[-1]
        writes = f" with {stage.done:,} of {stage.total:,} writes done" if stage.total else ""
        return f"after {self.seconds:.0f} s at '{stage.title}'{writes}"

    def say(self, detail: str) -> None:
        self.stages[-1].detail = detail
        self.show()


def run(order: Order, view: View) -> Outcome:
    """Run the demo. Raises `FirefleetError` if a part of it fails; replicas that differ are an outcome.

    Ctrl-C ends it with `Interrupted`, when all it started has been stopped.
    """
    course = _Course(order, view)
    try:
        return _run(course)
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted {course.whereabouts()}; nothing is left running") from error


def _run(course: _Course) -> Outcome:
    order = course.order
    season = plan_season(REPLICAS, changes=order.changes, seed=order.seed)
    with _started(course) as fleet:
        _perform(course, fleet, "The shop opens", season.opening)
        if order.replicating:
            _rest(course, fleet, "Everything arrives everywhere")
        _perform(course, fleet, "The branches trade", season.trading)
        last_write = course.seconds
        proof = _compare(course, fleet)
        settled = course.seconds - last_write
        shown = example(proof, fleet.fleet)
        return Outcome(
            order=order,
            writes=Counter(write.verb for write in season.writes()),
            conflicting=sum(len(moment) > 1 for moment in season.trading),
            seconds=course.seconds,
            settled=settled,
            proof=proof,
            shown=shown,
            shown_why=why(shown.record, fleet.fleet) if shown else "",
            flows=fleet.meters.flows(),
            outcomes=fleet.meters.outcomes(),
            lag=fleet.meters.lag(),
        )


@contextmanager
def _started(course: _Course) -> Iterator[Running]:
    with ExitStack() as stack:
        with course.stage("The fleet starts") as stage:
            fleet = stack.enter_context(course.order.open(course.say))
            stage.detail = ""
        course.fleet = fleet
        yield fleet


def _perform(course: _Course, fleet: Running, title: str, moments: Sequence[Moment]) -> None:
    trade = Trade(moments, {replica: fleet.writer(replica) for replica in REPLICAS}, pause=fleet.pause)
    with (
        course.stage(title, total=sum(map(len, moments))) as stage,
        ThreadPoolExecutor(len(REPLICAS), thread_name_prefix="branch") as pool,
    ):
        pending = set(trade.start(pool))
        try:
            while pending:
                done, pending = wait(pending, timeout=FRAME_S)
                for branch in done:
                    branch.result()
                stage.done = trade.done
                fleet.check()
                course.show()
        finally:
            trade.stop()


def _rest(course: _Course, fleet: Running, title: str) -> None:
    """Wait until nothing has moved for a while, or for `REST_S_MAX`."""
    deadline = time.monotonic() + REST_S_MAX
    with course.stage(title):
        seen, since = fleet.activity(), time.monotonic()
        while time.monotonic() < deadline:
            if seen is not None and time.monotonic() - since >= fleet.quiet:
                return
            time.sleep(FRAME_S)
            fleet.check()
            course.show()
            now = fleet.activity()
            if now is None or now != seen:
                seen, since = now, time.monotonic()


def _compare(course: _Course, fleet: Running) -> Proof:
    deadline = time.monotonic() + REST_S_MAX
    _rest(course, fleet, "The last changes arrive")
    with course.stage("The replicas are compared"):
        while True:
            proof = compare(fleet.fleet, {replica: fleet.read(replica) for replica in REPLICAS})
            # On a machine with other work a pause looks like rest, so a difference has to last.
            if proof.equal or not course.order.replicating or time.monotonic() > deadline:
                return proof
            time.sleep(COMPARE_EVERY_S)
            fleet.check()
            course.show()

"""`firefleet demo`: three replicas on this machine, real conflicts, and the proof that they end equal.

    shop ── writes to ──> backend (emulator | memory)   <── workers replicate
                              │ metrics                     │ documents
                            meters ──> view (live)        proof ──> report

`run` is its course. It needs no configuration.
"""

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import click
from rich.console import Console

from replication.errors import FirefleetError
from workers.demo.backend import Backend
from workers.demo.in_memory import EmbeddedFleet
from workers.demo.report import as_json, print_report, print_verdict
from workers.demo.run import Frame, Order, Outcome, View, run
from workers.demo.shop import CHANGES_MIN
from workers.demo.view import KeepingView, LiveView, NoView, PlainView, screen
from workers.local.emulators import Missing, programs
from workers.runtime.options import OutputFile, Whole
from workers.runtime.output import print_json

EMULATOR, MEMORY = "emulator", "memory"

CHANGES_MAX = 100_000
"""The plan and the proof are held in memory."""
_PICTURE_COLUMNS = 88
_QUIETED = ("firefleet", "conflict", "replication", "workers")


def choose(wanted: str, *, find: Callable[[], object] = programs) -> tuple[str, str]:
    """The backend to use, and why; `find` raises `Missing` where there are no emulators."""
    if wanted != "auto":
        return wanted, "as asked for"
    try:
        find()
    except Missing as missing:
        return MEMORY, f"because: {missing}"
    return EMULATOR, "because the official ones are installed"


def _opener(backend: str, *, seed: int, replicating: bool) -> Callable[[Callable[[str], None]], Backend]:
    def emulated(say: Callable[[str], None]) -> Backend:
        # Not at the top: it imports Google's whole client library, which the memory backend does not need.
        from workers.demo.on_emulators import EmulatedFleet  # noqa: PLC0415

        return EmulatedFleet(seed=seed, replicating=replicating, log=say)

    def embedded(_say: Callable[[str], None]) -> Backend:
        return EmbeddedFleet(seed=seed, replicating=replicating)

    return emulated if backend == EMULATOR else embedded


@click.command("demo")
@click.option(
    "--backend",
    type=click.Choice(["auto", EMULATOR, MEMORY]),
    default="auto",
    show_default=True,
    help="The official emulators, or everything in this process; auto: the emulators if installed.",
)
@click.option(
    "--changes",
    type=Whole(CHANGES_MIN, CHANGES_MAX),
    default=900,
    show_default=True,
    help="How many writes the shop makes, over all replicas.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the writes and delays.")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object at the end, and nothing else.")
@click.option("--without-replication", is_flag=True, help="Start no workers: to see the proof fail.")
@click.option("--picture", type=OutputFile(), help="Save the live view and the verdict as an SVG, too.")
def command(
    *,
    backend: str,
    changes: int,
    seed: int,
    json_wanted: bool,
    without_replication: bool,
    picture: Path | None,
) -> None:
    """Run a shop on three replicas that all take writes, with real conflicts, and prove they end equal.

    Exit code 1 if they do not.
    """
    chosen, reason = choose(backend)
    order = Order(
        backend=chosen,
        reason=reason,
        changes=changes,
        seed=seed,
        replicating=not without_replication,
        open=_opener(chosen, seed=seed, replicating=not without_replication),
    )
    console = Console(file=sys.stdout, highlight=False)
    if not json_wanted:
        console.print(f"Backend: {chosen}, {reason}", soft_wrap=True)
    with _quietly(), _view(console, json_wanted=json_wanted) as shown:
        view = KeepingView(shown)
        outcome = run(order, view)
    if json_wanted:
        print_json(as_json(outcome), default=bytes.hex)
    else:
        print_report(outcome, console)
    if picture is not None:
        _save_picture(picture, view.kept, outcome)
    if not outcome.proof.equal:
        raise SystemExit(1)


def _save_picture(path: Path, frame: Frame | None, outcome: Outcome) -> None:
    """Draw the live view as it was when the shop made its last write, and the verdict below it."""
    canvas = Console(
        record=True, highlight=False, width=_PICTURE_COLUMNS, file=io.StringIO(), force_terminal=True
    )
    if frame is not None:
        canvas.print(screen(frame, running=" "))
    canvas.print()
    print_verdict(outcome, canvas)
    try:
        canvas.save_svg(str(path), title=f"firefleet demo --backend {outcome.order.backend}")
    except OSError as error:
        raise FirefleetError(f"--picture: cannot write '{path}' ({error.strerror or error})") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without log lines below warnings: one for each conflict would hide what there is to see."""
    loggers = [logging.getLogger(name) for name in _QUIETED]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _view(console: Console, *, json_wanted: bool) -> AbstractContextManager[View]:
    if json_wanted:
        return nullcontext(NoView())
    return LiveView(console) if console.is_terminal else nullcontext(PlainView(console))

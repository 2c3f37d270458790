"""What is seen while the demo runs: a live table on a terminal, else a plain line now and then, or nothing."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from workers.demo.run import Frame, Stage, View
from workers.local.meters import Flow, milliseconds, total

LINE_S = 2.0
"""Between two plain lines of one stage."""
_BAR = 30
REPEATS = ("duplicate", "stale")
"""Changes that had nothing left to do: delivered again, or overtaken by a newer one."""


class LiveView:
    """Redraws one picture in place; a context manager. The last picture stays where something went wrong."""

    def __init__(self, console: Console) -> None:
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.transient = kind is None
        self._live.stop()

    def show(self, frame: Frame) -> None:
        """See `View.show`."""
        self._live.update(screen(frame, running=self._spinner))


class PlainView:
    """Prints a line when a stage begins or ends, and every two seconds between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""
        self._next = 0.0

    def show(self, frame: Frame) -> None:
        """See `View.show`."""
        stage = frame.stages[-1]
        if f"{stage.title}{stage.detail}{stage.finished}" == self._last and frame.seconds < self._next:
            return
        self._last = f"{stage.title}{stage.detail}{stage.finished}"
        self._next = frame.seconds + LINE_S
        self._console.print(plain_line(frame), soft_wrap=True)


class NoView:
    """Shows nothing."""

    def show(self, frame: Frame) -> None:
        """See `View.show`."""


class KeepingView:
    """Passes frames on to another view, and keeps the last one in which the shop was writing."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.kept: Frame | None = None

    def show(self, frame: Frame) -> None:
        """See `View.show`."""
        if frame.stages[-1].total:
            self.kept = frame
        self._view.show(frame)


def screen(frame: Frame, *, running: RenderableType) -> RenderableType:
    """The live view of one moment; `running` marks the stages that are not finished."""
    parts: list[RenderableType] = ["", _title(frame), "", _stages(frame.stages, running)]
    if frame.flows:
        parts += ["", flow_table(frame.flows)]
    return Group(*parts)


def _stages(stages: Sequence[Stage], running: RenderableType) -> Table:
    table = Table.grid(padding=(0, 1))
    for stage in stages:
        mark = Text("✓", style="green") if stage.finished else running
        table.add_row(mark, stage.title, _progress(stage))
    return table


def plain_line(frame: Frame) -> str:
    """One line that says where the demo is."""
    stage = frame.stages[-1]
    parts = [f"{frame.seconds:5.1f} s  {stage.title}"]
    if stage.total:
        parts.append(f"{stage.done} of {stage.total} writes")
    if stage.detail:
        parts.append(stage.detail)
    if stage.finished:
        parts.append("done")
    if frame.flows:
        outcomes = [flow.outcomes for flow in frame.flows]
        applied = sum(each["applied"] for each in outcomes)
        conflicts = sum(each["conflict"] for each in outcomes)
        dead = sum(each["dead_letter"] for each in outcomes)
        parts.append(f"{applied} applied, {conflicts} conflicts, {dead} dead letters")
    return "; ".join(parts)


def flow_table(flows: Sequence[Flow]) -> Table:
    """The lag and the outcomes from each replica to each other."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("from → to", no_wrap=True)
    for name in ("lag p50", "lag p99", "applied", "conflicts", "repeats", "dead letters"):
        table.add_column(name, justify="right", no_wrap=True)
    for flow in flows:
        # A change that comes back to its own replica gives it a tombstone or its clock: not a distance.
        if flow.source != flow.target:
            table.add_row(*_flow_row(flow))
    return table


def _flow_row(flow: Flow) -> list[RenderableType]:
    dead = flow.outcomes["dead_letter"]
    conflicts = flow.outcomes["conflict"]
    return [
        f"{flow.source} → {flow.target}",
        lag_text(flow.lag_p50),
        lag_text(flow.lag_p99),
        str(flow.outcomes["applied"]),
        Text(str(conflicts), style="yellow" if conflicts else ""),
        str(total(flow.outcomes, REPEATS)),
        Text(str(dead), style="bold red" if dead else ""),
    ]


def lag_text(seconds: float | None) -> str:
    """A lag for people; a dash where nothing was measured."""
    shown = milliseconds(seconds)
    if shown is None or seconds is None:
        return "–"
    return f"{seconds:.2f} s" if shown >= 1000 else f"{shown:.0f} ms"


def _title(frame: Frame) -> Table:
    table = Table.grid(expand=True)
    table.add_column()
    table.add_column(justify="right")
    table.add_row(
        Text("firefleet demo", style="bold cyan"),
        Text(f"{frame.backend} · seed {frame.seed} · {frame.seconds:.1f} s", style="dim"),
    )
    return table


def _progress(stage: Stage) -> RenderableType:
    if not stage.total:
        return Text(stage.detail, style="dim")
    bar = ProgressBar(total=stage.total, completed=stage.done, width=_BAR)
    row = Table.grid(padding=(0, 1))
    row.add_row(bar, f"{stage.done} of {stage.total} writes")
    return row

"""What is seen while the fleet runs: a table redrawn in place on a terminal, else a plain line now and then."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from workers.demo.view import flow_table, lag_text
from workers.local.meters import Flow, Meters

LINE_S = 10.0
"""Between two plain lines."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The fleet at one moment. `waiting` are events on their way to capture, `held` messages by replica."""

    seconds: float
    flows: Sequence[Flow]
    waiting: int
    held: Counter[str]


class View(Protocol):
    """Shows what goes on."""

    def show(self, picture: Picture) -> None:
        """Show the fleet at a moment."""
        ...

    def say(self, text: str) -> None:
        """Print what must be read."""
        ...


def picture(meters: Meters, replicas: Sequence[str], *, seconds: float, waiting: int) -> Picture:
    """The state of all pairs, those included of which nothing was heard yet."""
    heard = {(flow.source, flow.target): flow for flow in meters.flows()}
    pairs = [(source, target) for source in replicas for target in replicas if source != target]
    flows = [heard.get(pair) or Flow(*pair, None, None, Counter()) for pair in pairs]
    return Picture(seconds, flows, waiting, meters.held())


class LiveView:
    """Redraws the table at the bottom of a terminal; a context manager."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, picture: Picture) -> None:
        """See `View.show`."""
        self._live.update(Group("", flow_table(picture.flows), "", Text(_status(picture), style="dim")))

    def say(self, text: str) -> None:
        """See `View.say`."""
        self._live.console.print(Text(text))


class PlainView:
    """Prints a line when something has changed, every ten seconds at most."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: object = None
        self._next = 0.0

    def show(self, picture: Picture) -> None:
        """See `View.show`."""
        seen = [flow.outcomes for flow in picture.flows]
        if picture.seconds < self._next or seen == self._last or not any(seen):
            return
        self._last, self._next = seen, picture.seconds + LINE_S
        self.say(line(picture))

    def say(self, text: str) -> None:
        """See `View.say`."""
        self._console.print(Text(text), soft_wrap=True)


def line(picture: Picture) -> str:
    """One line: what all pairs together met, then the lag of each pair that has one."""
    outcomes = sum((flow.outcomes for flow in picture.flows), Counter[str]())
    counts = (
        f"{picture.seconds:.0f} s: applied {outcomes['applied']}, conflicts {outcomes['conflict']}, "
        f"dead letters {outcomes['dead_letter']}; {_status(picture)}"
    )
    lags = [
        f"{flow.source}→{flow.target} {lag_text(flow.lag_p50)}/{lag_text(flow.lag_p99)}"
        for flow in picture.flows
        if flow.lag_p50 is not None
    ]
    return f"{counts}; lag p50/p99: {', '.join(lags)}" if lags else counts


def _status(picture: Picture) -> str:
    held = sum(picture.held.values())
    return f"events waiting for capture {picture.waiting}, messages held by workers {held}"

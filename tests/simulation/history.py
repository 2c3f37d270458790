"""What happened in one history: plain facts, written by the simulated world and judged by the oracles.

Nothing in here is computed by the code under test, except where it is that code's own claim (what it logged,
reported, acknowledged). A history can be written by hand, which is how the oracles are tested.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.knobs import Knobs


@dataclass(frozen=True, slots=True)
class AppWrite:
    """One application's write that changed a document.

    `time` is its commit time and `body` what the document held afterwards, None for a delete; `parents` are
    the numbers of the writes it had directly seen: what it replaced, or what the copy it wrote back was.
    `tainted`: it brought metadata sealed with the fleet's own secret, after which only convergence is
    promised. `cursed`: no database takes it from this system. `severed`: it had seen other replicas' writes,
    but the document it left does not say so: it has no `_repl` to be believed, until capture's event heals it,
    or it was created again, and no document names the delete it comes after.
    """

    number: int
    replica: str
    path: str
    dot: int
    time: int
    body: bytes | None
    parents: tuple[int, ...] = ()
    kind: str = "set"
    tainted: bool = False
    cursed: bool = False
    severed: bool = False


@dataclass(frozen=True, slots=True)
class Side:
    """One side of an entry in the conflict log, as read back from the database. `body`: None if deleted or
    missing."""

    id: str
    origin: str
    dot: int
    deleted: bool
    clock: Mapping[str, int]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry in a replica's conflict log."""

    replica: str
    path: str
    kind: str
    winner: str
    sides: tuple[Side, ...]

    @property
    def losers(self) -> list[Side]:
        """The sides that did not stay."""
        return [side for side in self.sides if side.id != self.winner]


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledgement, and what stood when it was sent.

    `needs` is the clock the message brought, `standing` all that had ever been stored of that document at
    that replica. `settled`: its dead letter, conflict record or forwarding was published or stored.
    """

    replica: str
    message: str
    needs: Mapping[str, int]
    standing: Mapping[str, int]
    settled: bool


@dataclass(frozen=True, slots=True)
class Lag:
    """A lag that a worker reported, and the lags that are true: one for each write of that document there."""

    replica: str
    message: str
    reported: int | None
    true: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Final:
    """A document at one replica in the end. `version` is what the code under test says of it."""

    body: bytes | None
    update_time: int
    version: Any = None


@dataclass(slots=True)
class History:
    """Everything that the oracles look at. `captured` is kept only where a replica may die."""

    knobs: Knobs
    writes: list[AppWrite] = field(default_factory=list)
    captured: set[int] = field(default_factory=set)
    finals: dict[tuple[str, str], Final] = field(default_factory=dict)
    replayed: dict[tuple[str, str], Final] = field(default_factory=dict)
    logged: list[Logged] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    lags: list[Lag] = field(default_factory=list)
    poisoned: dict[str, str] = field(default_factory=dict)
    buried: Counter[str] = field(default_factory=Counter)
    dead: str | None = None
    restless: str | None = None
    crashed: str | None = None
    published: int = 0
    replays: int = 0
    held_max: int = 0
    sometimes: Counter[str] = field(default_factory=Counter)

    @property
    def living(self) -> tuple[str, ...]:
        """The replicas that are not dead for ever."""
        return tuple(name for name in self.knobs.ids if name != self.dead)

"""A version: what one state of a document has seen, and its place in the total order.

The stamp is a hybrid logical clock reduced to one integer, `max(commit time, context's stamp + 1)`, so that a
write is always later than what it had seen, whatever the clocks say. Source: Kulkarni et al. 2014, "Logical
physical clocks", https://cse.buffalo.edu/tech-reports/2014-04.pdf.
"""

from typing import NamedTuple

from conflict.clock import Clock, advance, includes, merge

Order = tuple[int, str, int, bytes]

NO_CONTENT = b""
"""A deleted document has no content, so its version has no digest; it orders below every digest."""


class Version(NamedTuple):
    """One state of one document.

    `clock` is what it includes; `stamp`, `origin` (the winning write's replica) and `dot` (that write's own
    commit time) are in microseconds. `mixed` says that the body was computed from several writes, so that
    `dot` speaks for one of them only.
    """

    clock: Clock
    stamp: int
    origin: str
    dot: int
    digest: bytes = NO_CONTENT
    deleted: bool = False
    mixed: bool = False

    @property
    def order(self) -> Order:
        """The total order of last-write-wins. No two writes have the same (stamp, origin, dot)."""
        return (self.stamp, self.origin, self.dot, self.digest)

    @property
    def total(self) -> tuple[int, str, int, bytes, bool, bool]:
        """`order`, then what else differs: forged metadata cannot make two different versions equal."""
        return (*self.order, self.deleted, self.mixed)

    def same_content(self, other: "Version") -> bool:
        """Whether both stand for the same document, or for none."""
        return self.deleted == other.deleted and self.digest == other.digest


def supersedes(a: Version, b: Version) -> bool:
    """Whether `a`'s writer had seen `b`, or a later write of its replica, although a clock may be lost.

    True when `a` includes `b`'s dot and `b` does not include `a`'s. Never for a mixed version: its dot names
    one of the several writes it stands for.
    """
    return (
        not a.mixed
        and not b.mixed
        and includes(a.clock, b.origin, b.dot)
        and not includes(b.clock, a.origin, a.dot)
    )


def written(replica: str, commit_time: int, digest: bytes, context: Version | None = None) -> Version:
    """The version of a write at `replica`, whose writer had seen `context`; times in microseconds."""
    if context is None:
        return Version({replica: commit_time}, commit_time, replica, commit_time, digest)
    return Version(
        clock=advance(context.clock, replica, commit_time),
        stamp=max(commit_time, context.stamp + 1),
        origin=replica,
        dot=commit_time,
        digest=digest,
    )


def deleted(replica: str, last_update: int, event_time: int, context: Version | None = None) -> Version:
    """The version of a delete at `replica` of a document last written at `last_update`; microseconds.

    Its dot is one above the last update and not the event's time: the event's time may be rounded up to
    after a re-creation, and any re-creation must supersede the delete.
    """
    dot = last_update + 1
    seen = context.clock if context else {}
    floor = context.stamp + 1 if context else 0
    return Version(
        clock=advance(seen, replica, dot),
        stamp=max(event_time, dot, floor),
        origin=replica,
        dot=dot,
        deleted=True,
    )


def with_clock_of(winner: Version, other: Version) -> Version:
    """`winner`, having seen `other` too."""
    return winner._replace(clock=merge(winner.clock, other.clock))

"""Version vectors: which writes of which replica a version has seen.

A clock maps a replica's id to the largest dot of that replica it includes; a dot is the commit time, in
microseconds, of one write at that replica. A clock has at most one entry per replica, however many workers
there are.

Source: Parker et al. 1983, "Detection of mutual inconsistency in distributed systems",
https://doi.org/10.1109/TSE.1983.236733. Keyed by replica and not by client: Preguiça et al. 2012, "Dotted
version vectors", https://arxiv.org/abs/1011.5808.
"""

from collections.abc import Mapping

Clock = Mapping[str, int]


def descends(a: Clock, b: Clock) -> bool:
    """Whether `a` includes everything `b` includes. Equal clocks descend from each other."""
    # A loop, because this is asked for every change, and a generator costs three times as much. An absent entry
    # and a zero say the same: nothing of that replica is included.
    for replica, dot in b.items():  # noqa: SIM110
        if a.get(replica, 0) < dot:
            return False
    return True


def includes(clock: Clock, replica: str, dot: int) -> bool:
    """Whether `clock` includes the write that `replica` committed at `dot`."""
    return clock.get(replica, 0) >= dot


def merge(a: Clock, b: Clock) -> dict[str, int]:
    """The smallest clock that descends from both."""
    merged = dict(a)
    for replica, dot in b.items():
        if merged.get(replica, 0) < dot:
            merged[replica] = dot
    return merged


def advance(clock: Clock, replica: str, dot: int) -> dict[str, int]:
    """`clock` with one more write of `replica`; never moves an entry backwards."""
    return merge(clock, {replica: dot})

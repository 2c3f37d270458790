"""Compare histories: what an incoming version is to the local one.

Detection knows no policy: it says what happened. `conflict.resolve` says what to do if neither had seen the
other. The idea of keeping the two apart is Riak's (reconcile and resolve in `riak_core_metadata_object`).
"""

from enum import Enum

from conflict.clock import descends
from conflict.version import Version, supersedes


class Relation(Enum):
    """What an incoming version is to the local one."""

    DESCENDS = "incoming has seen local"
    ANCESTOR = "local has seen incoming"
    SAME = "the same version"
    TIED_ABOVE = "equal clocks, incoming is larger in the total order"
    TIED_BELOW = "equal clocks, local is larger in the total order"
    SUPERSEDES = "incoming's writer had seen local's write, but its clock was lost"
    SUPERSEDED = "local's writer had seen incoming's write, but its clock was lost"
    CONCURRENT = "neither had seen the other"


def reconcile(incoming: Version, local: Version) -> Relation:
    """Compare two versions of one document by their histories alone."""
    ahead = descends(incoming.clock, local.clock)
    behind = descends(local.clock, incoming.clock)
    if ahead and behind:
        return _break_tie(incoming, local)
    if ahead:
        return Relation.DESCENDS
    if behind:
        return Relation.ANCESTOR
    if supersedes(incoming, local):
        return Relation.SUPERSEDES
    if supersedes(local, incoming):
        return Relation.SUPERSEDED
    return Relation.CONCURRENT


def _break_tie(incoming: Version, local: Version) -> Relation:
    # Equal clocks are reached by merging in another order, or by a policy that breaks its laws. The larger
    # must win even where the content is the same, else two replicas keep different orders forever.
    mine, theirs = incoming.total, local.total
    if mine == theirs:
        return Relation.SAME
    return Relation.TIED_ABOVE if mine > theirs else Relation.TIED_BELOW

"""Whole fleets simulated in memory, in one thread; every choice follows from a seed.

    from replication.simulation import prove

`prove` shows that a policy is safe before it decides about real data. It stands on `world` (databases, topic,
time), `worker` and `capture` (the two processes, one step at a time), `faults` (what goes wrong) and `dice`.
The project's own simulator, `tests/simulation`, adds faults and oracles to the same world. Nothing here reads
a clock, starts a thread or draws a number that does not follow from the seed.
"""

from replication.simulation.prove import prove, simulate
from replication.simulation.trial import Unsafe

__all__ = ["Unsafe", "prove", "simulate"]

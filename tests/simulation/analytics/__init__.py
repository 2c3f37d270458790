"""Histories of analytics workers: the real intake, buffer and flush, one thread, one seed, every interleaving.

A worker's generators are stepped one effect at a time, in an order the dice choose: several pulls, the parts of
a flush, other workers. Between any two effects a worker may die or be told to stop, and any effect may fail in
the ways its service has. `python -m tests.simulation.analytics run` lives histories, and `planted` looks for
planted faults.
"""

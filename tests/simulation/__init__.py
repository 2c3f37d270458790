"""The simulation: the real core, on databases in memory, in one thread, every choice drawn from a seed."""

"""Fleets simulated in memory, to prove a policy before it decides about real data."""

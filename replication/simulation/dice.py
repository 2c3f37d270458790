"""Cheap, reproducible randomness: one small generator per step of a history.

Each step of a history draws from its own dice, so that leaving one step out does not change what the
others draw: that is what makes a failing history shrinkable. The generator is splitmix64's finaliser over a
linear congruential one: not for cryptography, and fast in Python.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

_MASK = (1 << 64) - 1


def mixed(seed: int) -> int:
    """`seed` scattered over 64 bits (splitmix64's finaliser)."""
    z = (seed + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class Dice:
    """Draws that follow from a seed alone."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = mixed(seed)

    def below(self, count: int) -> int:
        """One of 0 … count - 1."""
        self._state = state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return ((state >> 33) * count) >> 31

    def chance(self, per_mille: int) -> bool:
        """True `per_mille` times in a thousand."""
        return per_mille > 0 and self.below(1000) < per_mille

    def pick(self, things: Sequence[T]) -> T:
        """One of `things`."""
        return things[self.below(len(things))]

    def shuffle(self, things: list[T]) -> list[T]:
        """`things`, in place, in another order."""
        for last in range(len(things) - 1, 0, -1):
            other = self.below(last + 1)
            things[last], things[other] = things[other], things[last]
        return things

    def weighted(self, weights: Sequence[tuple[str, int]]) -> str:
        """One name, by weight."""
        left = self.below(sum(weight for _, weight in weights))
        for name, weight in weights:
            left -= weight
            if left < 0:
                return name
        raise AssertionError("weights are below zero")

"""Make a failing history shorter: leave out steps while it still breaks the same oracle.

Zeller's delta debugging (https://doi.org/10.1109/32.988498): ever smaller parts are tried. Each step draws
from dice of its own, so that what is left out does not change what the others draw.
"""

from collections.abc import Mapping
from typing import Any

from tests.simulation.knobs import draw_knobs
from tests.simulation.oracles import judge
from tests.simulation.runner import live
from tests.simulation.world import STEPS_PER_OPERATION

TRIES_MAX = 2_000


def shrink(
    seed: int, *, forced: Mapping[str, Any] | None = None, tries_max: int = TRIES_MAX
) -> list[int] | None:
    """The steps that are enough to break what the seed breaks first; None when it breaks nothing."""
    steps = list(range(draw_knobs(seed, forced).operations * STEPS_PER_OPERATION))
    oracle = _broken(seed, steps, forced)
    if oracle is None:
        return None
    size, tries = max(1, len(steps) // 2), 0
    while tries < tries_max:
        kept, at = steps, 0
        while at < len(kept) and tries < tries_max:
            shorter = kept[:at] + kept[at + size :]
            tries += 1
            if _broken(seed, shorter, forced) == oracle:
                kept = shorter
            else:
                at += size
        if len(kept) == len(steps) and size == 1:
            return kept
        steps, size = kept, size if len(kept) < len(steps) else max(1, size // 2)
    return steps


def _broken(seed: int, steps: list[int], forced: Mapping[str, Any] | None) -> str | None:
    wrong = judge(live(seed, forced=forced, steps=steps))
    return wrong[0][0] if wrong else None

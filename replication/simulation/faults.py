"""What can go wrong in a simulated world. The world asks; an instance of `Faults` answers.

`before` and `after` are asked around every effect of every process, and may raise:

    Transient   the call fails: in `before`, it was not made; in `after`, it was made and its answer is lost
    Died        the process dies there, with all it holds

A subclass draws from the world's dice when to do so.
"""

from typing import TYPE_CHECKING

from replication.adapters.memory_pubsub import Retained
from replication.apply.effects import Effect

if TYPE_CHECKING:
    from replication.simulation.capture import Capture
    from replication.simulation.driver import Driver


class Died(Exception):
    """The process under simulation is gone; nothing after this point happens in it."""


class Faults:
    """Nothing goes wrong, and messages arrive in the order they were published."""

    def before(self, process: "Driver | Capture", effect: Effect) -> None:
        """Raise to keep an effect from happening."""

    def after(self, process: "Driver | Capture", effect: Effect) -> None:
        """Raise to lose the answer of an effect that has happened."""

    def deliver(self, ready: list[Retained]) -> list[Retained]:
        """Which of the messages that are ready a pull gets, in which order; some may come twice."""
        return ready

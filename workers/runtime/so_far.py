"""How much of a long task is done, for its message if it is stopped or fails."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from replication.errors import FirefleetError, Interrupted
from replication.words import counted


class SoFar:
    """Counts what is confirmed of `total` things, and passes it on to `show`."""

    def __init__(self, total: int, noun: str, *, show: Callable[[int], None] = lambda _: None) -> None:
        self._of = counted(total, noun)
        self._show = show
        self._done = 0

    def confirm(self, done: int) -> None:
        """So many are confirmed by now."""
        self._done = done
        self._show(done)

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Add how far the work got to the error that ends it early."""
        try:
            yield
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"interrupted: {self._done:,} of {self._of} published and confirmed; "
                "some that were under way may have been published too"
            ) from error
        except FirefleetError as error:
            if not self._done:
                raise
            raise FirefleetError(f"{error}; {self._done:,} of {self._of} had been published") from error

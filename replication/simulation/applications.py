"""What the applications of a proof write, drawn from the examples a policy is proved with."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from conflict.resolve import Fields
from replication.adapters.memory import MemoryDatabase
from replication.documents.plain import fill
from replication.documents.wire import Value
from replication.simulation.dice import Dice

REPLICAS = ("eu", "us", "apac")
PATHS = ("documents/1", "documents/2")
ROUNDS = 3
"""Times that the replicas write without having seen each other; each begins from what the last one left."""


class AppWrite(NamedTuple):
    """An application's write: of the whole document, of some of its fields, or, without any, its delete."""

    replica: str
    path: str
    fields: Fields | None
    whole: bool = True

    def perform(self, database: MemoryDatabase) -> None:
        """Write to the replica's database, as the official client does."""
        if self.fields is None:
            database.delete(self.path)
            return
        values = {name: _value(value) for name, value in self.fields.items()}
        if self.whole or database.get(self.path) is None:
            database.set(self.path, values)
        else:
            database.update(self.path, values)


def draw_rounds(examples: Sequence[Fields], dice: Dice) -> Iterator[list[AppWrite]]:
    """The writes of one history, by round."""
    for _ in range(ROUNDS):
        yield [
            _write(examples, dice, replica, path)
            for path in PATHS
            for replica in dice.shuffle(list(REPLICAS))
            if dice.chance(800)
        ]


def _write(examples: Sequence[Fields], dice: Dice, replica: str, path: str) -> AppWrite:
    if dice.chance(50):
        return AppWrite(replica, path, None)
    body = dice.pick([_mixture(examples, dice), *examples])
    if body and dice.chance(300):
        name = dice.pick(sorted(body))
        return AppWrite(replica, path, {name: body[name]}, whole=False)
    return AppWrite(replica, path, body)


def _mixture(examples: Sequence[Fields], dice: Dice) -> Fields:
    mixture = {}
    for name in sorted({name for example in examples for name in example}):
        source = dice.pick(examples)
        if name in source:
            mixture[name] = source[name]
    return mixture


def _value(plain: Any) -> Any:
    value = Value()
    fill(value, plain)
    return value

"""The demo's application: a small shop that writes to every replica at once, from a seed.

What it will write is planned first, purely; writing it is one thread per replica, which knows nothing of
replication. In the plan a *moment* is one write, or several at different replicas at the same time: those are
the conflicts, and nothing else in the demo makes any.
"""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

STATES = ("pending", "approved", "shipped", "rejected", "refunded")
"""Of an order, lowest precedence first."""

COLLECTIONS: Sequence[Mapping[str, Any]] = (
    {
        "match": "orders/{order}",
        "mode": "multi-primary",
        "conflict": {"policy": "precedence", "field": "status", "order": list(STATES)},
    },
    {
        "match": "products/{product}",
        "mode": "multi-primary",
        "conflict": {"policy": "field-rules", "fields": {"stock": "min", "tags": "union", "views": "max"}},
    },
    {"match": "{document=**}", "mode": "multi-primary"},
)
"""The shop's rules, as they stand in a configuration file."""

CHANGES_MIN = 30
_OPENED = datetime(2026, 1, 1, 9, tzinfo=UTC)
_GOODS = ("lamp", "kettle", "atlas", "bicycle", "teapot", "radio", "scarf", "chessboard", "telescope", "drum")
_TAGS = ("new", "sale", "gift", "vintage", "bulky", "fragile", "local", "last-one")
_MEETING_S_MAX = 30.0


class Verb(StrEnum):
    """What one write does."""

    SET = "set"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Link:
    """A reference to a document of the writer's own database, by its relative path."""

    path: str


@dataclass(frozen=True, slots=True)
class ShopWrite:
    """One write of the shop's, at one replica."""

    replica: str
    verb: Verb
    path: str
    fields: Mapping[str, Any] = field(default_factory=dict)


Moment = tuple[ShopWrite, ...]


class Writer(Protocol):
    """How the shop writes to its replica: a client of Firestore's, reduced to what the shop needs."""

    def set(self, path: str, fields: Mapping[str, Any]) -> None:
        """Write a whole document."""
        ...

    def update(self, path: str, fields: Mapping[str, Any]) -> None:
        """Change these fields; a document that is not there is written with these alone."""
        ...

    def delete(self, path: str) -> None:
        """Delete a document."""
        ...


@dataclass(frozen=True, slots=True)
class Season:
    """All the shop will write: first what it opens with, then its trade."""

    opening: Sequence[Moment]
    trading: Sequence[Moment]

    def writes(self) -> Iterator[ShopWrite]:
        """Every write of it."""
        for moments in (self.opening, self.trading):
            for moment in moments:
                yield from moment


def plan_season(replicas: Sequence[str], *, changes: int, seed: int) -> Season:
    """A season of `changes` writes (one or two more where the last moment has several). Pure."""
    chance = random.Random(seed)  # noqa: S311 - a demonstration, no secret
    shelves = _Shelves(tuple(replicas), chance)
    opening = [shelves.opening_write(number) for number in range(changes * 3 // 5)]
    trading: list[Moment] = []
    left = changes - len(opening)
    while left > 0:
        moment = shelves.trade()
        trading.append(moment)
        left -= len(moment)
    return Season(opening, trading)


class _Shelves:
    """What the shop has, while it is planned."""

    def __init__(self, replicas: tuple[str, ...], chance: random.Random) -> None:
        self._replicas = replicas
        self._chance = chance
        self._has: dict[str, list[str]] = {"products": [], "orders": [], "carts": [], "items": []}
        self._gone: list[str] = []
        self._minutes = 0

    def opening_write(self, number: int) -> Moment:
        """The `number`-th document the shop opens with: for every product some orders, carts and items."""
        match number % 20:
            case 0 | 5 | 10:
                return self._new_product()
            case 1 | 6 | 11:
                return self._new_cart()
            case 2 | 4 | 7 | 9 | 12 | 14:
                return self._new_item()
            case _:
                return self._new_order()

    def trade(self) -> Moment:
        """What happens next in the shop."""
        kinds: dict[Callable[[], Moment], int] = {
            self._rival_states: 3,
            self._rival_sales: 3,
            self._rival_carts: 2,
            self._delete_against_update: 1,
            self._delete_item: 3,
            self._bring_back: 1,
            self._move_order_on: 3,
            self._new_order: 2,
        }
        [kind] = self._chance.choices(list(kinds), weights=list(kinds.values()))
        return kind()

    def _new_product(self) -> Moment:
        fields = {
            "name": self._chance.choice(_GOODS),
            "price": self._chance.randrange(500, 90_000) / 100,
            "stock": self._chance.randrange(20, 400),
            "tags": sorted(self._chance.sample(_TAGS, 2)),
            "views": 0,
        }
        return self._create("products", f"products/p{len(self._has['products']) + 1:03}", fields)

    def _new_order(self) -> Moment:
        number = len(self._has["orders"]) + 1
        product = self._any("products")
        quantity = self._chance.randrange(1, 5)
        fields = {
            "status": STATES[0],
            "customer": f"c{self._chance.randrange(1, 80):02}",
            "total": self._chance.randrange(500, 90_000) / 100,
            "lines": [{"product": Link(product), "quantity": quantity}],
            "placed_at": self._now(),
        }
        return self._create("orders", f"orders/o{number:04}", fields)

    def _new_cart(self) -> Moment:
        number = len(self._has["carts"]) + 1
        fields = {"customer": f"c{number:02}", "coupon": None, "updated_at": self._now()}
        return self._create("carts", f"carts/c{number:02}", fields)

    def _new_item(self) -> Moment:
        number = len(self._has["items"]) + len(self._gone) + 1
        return self._create("items", f"{self._any('carts')}/items/i{number:03}", self._item())

    def _item(self) -> dict[str, Any]:
        return {"product": Link(self._any("products")), "quantity": self._chance.randrange(1, 9), "gift": False}

    def _rival_states(self) -> Moment:
        """Two branches decide the same order differently."""
        first, second = self._chance.sample(STATES[1:], 2)
        return self._rivals(self._any("orders"), [{"status": first}, {"status": second}])

    def _rival_sales(self) -> Moment:
        """Two branches sell the same product, and tag it."""
        return self._rivals(
            self._any("products"),
            [
                {
                    "stock": self._chance.randrange(0, 20),
                    "tags": sorted(self._chance.sample(_TAGS, 3)),
                    "views": self._chance.randrange(1, 999),
                }
                for _ in range(2)
            ],
        )

    def _rival_carts(self) -> Moment:
        """One customer with several devices."""
        devices = self._chance.choice((2, len(self._replicas)))
        fields = [
            {"coupon": f"SAVE{self._chance.randrange(5, 60)}", "updated_at": self._now()}
            for _ in range(min(devices, len(self._replicas)))
        ]
        return self._rivals(self._any("carts"), fields)

    def _delete_against_update(self) -> Moment:
        """One branch throws away what another one changes."""
        if not self._has["items"]:
            return self._new_item()
        path = self._take_item()
        one, other = self._chance.sample(self._replicas, 2)
        return (
            ShopWrite(one, Verb.DELETE, path),
            ShopWrite(other, Verb.UPDATE, path, {"quantity": 9, "gift": True}),
        )

    def _delete_item(self) -> Moment:
        if not self._has["items"]:
            return self._new_item()
        path = self._take_item()
        self._gone.append(path)
        return (ShopWrite(self._replica(), Verb.DELETE, path),)

    def _bring_back(self) -> Moment:
        """Somebody wants it after all: an id that was deleted before is used again."""
        if not self._gone:
            return self._delete_item()
        path = self._gone.pop(0)
        self._has["items"].append(path)
        return (ShopWrite(self._replica(), Verb.SET, path, self._item()),)

    def _move_order_on(self) -> Moment:
        fields = {"status": STATES[1], "checked_at": self._now()}
        return (ShopWrite(self._replica(), Verb.UPDATE, self._any("orders"), fields),)

    def _create(self, kind: str, path: str, fields: Mapping[str, Any]) -> Moment:
        self._has[kind].append(path)
        return (ShopWrite(self._replica(), Verb.SET, path, fields),)

    def _rivals(self, path: str, fields: Sequence[Mapping[str, Any]]) -> Moment:
        branches = self._chance.sample(self._replicas, len(fields))
        return tuple(
            ShopWrite(replica, Verb.UPDATE, path, {**change, "by": replica})
            for replica, change in zip(branches, fields, strict=True)
        )

    def _any(self, kind: str) -> str:
        return self._chance.choice(self._has[kind])

    def _take_item(self) -> str:
        return self._has["items"].pop(self._chance.randrange(len(self._has["items"])))

    def _replica(self) -> str:
        return self._chance.choice(self._replicas)

    def _now(self) -> datetime:
        self._minutes += 1
        return _OPENED + timedelta(minutes=self._minutes, microseconds=self._chance.randrange(1_000_000))


class Trade:
    """Performs moments: one thread per replica, which meet where a moment has several writes."""

    def __init__(self, moments: Sequence[Moment], writers: Mapping[str, Writer], *, pause: float = 0.0) -> None:
        """`pause` is the time between two writes of one replica, in seconds."""
        self._writers = writers
        self._pause = pause
        self._stop = threading.Event()
        self._done = dict.fromkeys(writers, 0)
        self._diaries: dict[str, list[tuple[ShopWrite, threading.Barrier]]] = {name: [] for name in writers}
        for moment in moments:
            meeting = threading.Barrier(len(moment))
            for write in moment:
                self._diaries[write.replica].append((write, meeting))

    @property
    def done(self) -> int:
        """How many writes have been made."""
        return sum(self._done.values())

    def start(self, pool: ThreadPoolExecutor) -> "list[Future[None]]":
        """Begin; a future for each replica's thread. The pool must have a thread for each."""
        return [pool.submit(self._branch, replica) for replica in self._writers]

    def stop(self) -> None:
        """Write no more; threads that wait for another end, too."""
        self._stop.set()
        for diary in self._diaries.values():
            for _, meeting in diary:
                meeting.abort()

    def _branch(self, replica: str) -> None:
        try:
            self._write_all(replica)
        except threading.BrokenBarrierError:
            if not self._stop.is_set():
                raise
        except BaseException:
            # The others must not wait for this one.
            self.stop()
            raise

    def _write_all(self, replica: str) -> None:
        writer = self._writers[replica]
        for write, meeting in self._diaries[replica]:
            if self._stop.wait(self._pause):
                return
            meeting.wait(_MEETING_S_MAX)
            _perform(write, writer)
            self._done[replica] += 1


def _perform(write: ShopWrite, writer: Writer) -> None:
    match write.verb:
        case Verb.SET:
            writer.set(write.path, write.fields)
        case Verb.UPDATE:
            writer.update(write.path, write.fields)
        case Verb.DELETE:
            writer.delete(write.path)

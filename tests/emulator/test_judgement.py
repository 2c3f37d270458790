"""The judge of the cells and the soak: each fault it looks for, made by hand, is found."""

import pytest

from replication.documents.wire import Document
from tests.emulator.application import Op
from tests.emulator.judgement import Losers, faults
from tests.emulator.workloads import Seen


def write(id_: int, at: str, op: Op = "set", *, saw: int | None = None) -> Seen:
    fields = {} if op == "delete" else {"write": id_}
    return Seen(at, "d/1", op, fields, id_, id_, saw)


def body(id_: int) -> bytes:
    made = Document()
    made.fields["write"].integer_value = id_
    return bytes(made.SerializeToString(deterministic=True))


CHAIN = (write(1, "eu"), write(2, "us", saw=1), write(3, "eu", saw=2))
CONCURRENT = (write(1, "eu"), write(2, "us"))
DELETED = (write(1, "eu"), write(2, "us", "delete", saw=1))
REBORN = (*DELETED, write(3, "us"))


@pytest.mark.parametrize(
    ("log", "held", "lost"),
    [
        (CHAIN, 3, Losers()),
        (CONCURRENT, 2, Losers(writes={1})),
        (DELETED, None, Losers()),
        (REBORN, 3, Losers()),
        ((*DELETED, write(3, "eu", "update", saw=1)), 3, Losers(deletes={"d/1"})),
        ((*DELETED, write(3, "eu", "update", saw=1)), None, Losers(writes={3})),
    ],
    ids=["chain", "conflict", "deleted", "reborn", "update wins", "delete wins"],
)
def test_a_sound_end_is_found_sound(log: tuple[Seen, ...], held: int | None, lost: Losers) -> None:
    assert faults(log, {} if held is None else {"d/1": body(held)}, lost) == []


@pytest.mark.parametrize(
    ("log", "held", "lost", "complaint"),
    [
        (CHAIN, 2, Losers(), "has come back"),
        (CHAIN, None, Losers(), "no delete of it was the last word"),
        (CHAIN, 9, Losers(), "nobody's"),
        ((), 9, Losers(), "nobody wrote this document"),
        (CONCURRENT, 2, Losers(), "set 1 at eu is lost without a trace"),
        (CONCURRENT, 1, Losers(writes={2}), "keeps another write than the last one"),
        (DELETED, 1, Losers(), "has come back"),
        (REBORN, None, Losers(), "no delete of it was the last word"),
        ((*DELETED, write(3, "eu", "update", saw=1)), None, Losers(), "update 3 at eu is lost"),
        ((*DELETED, write(3, "eu", "update", saw=1)), 3, Losers(), "delete 2 at us is lost"),
    ],
    ids=[
        "stale",
        "gone",
        "foreign value",
        "foreign document",
        "lost",
        "earlier one kept",
        "risen",
        "re-creation lost",
        "loser not logged",
        "delete not logged",
    ],
)
def test_a_broken_end_is_found(log: tuple[Seen, ...], held: int | None, lost: Losers, complaint: str) -> None:
    found = faults(log, {} if held is None else {"d/1": body(held)}, lost)
    assert any(complaint in one for one in found), found

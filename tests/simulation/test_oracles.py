"""Each oracle against histories broken by hand: it sees what it is for, and is silent if nothing is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from conflict.version import Version
from replication.documents.wire import Document, Value
from tests.simulation import oracles
from tests.simulation.history import Ack, AppWrite, Final, History, Lag, Logged, Side
from tests.simulation.knobs import Knobs

EU, US, APAC = "eu", "us", "apac"
PATH, WALLET, NOTE = "orders/1", "wallets/1", "notes/1"


def body(**fields: Any) -> bytes:
    values = {name: Value(integer_value=value) for name, value in fields.items()}
    return bytes(Document(fields=values).SerializeToString(deterministic=True))


def write(number: int, replica: str, content: bytes | None, **more: Any) -> AppWrite:
    given = {"path": PATH, "dot": 100 + number, "time": 100 + number, **more}
    return AppWrite(number=number, replica=replica, body=content, **given)


def history(*writes: AppWrite, final: bytes | None, path: str = PATH, **knobs: Any) -> History:
    """Three replicas that all hold `final`, after `writes`."""
    made = History(Knobs(orders=1, wallets=int(path == WALLET), notes=int(path == NOTE), **knobs))
    made.writes = list(writes)
    made.captured = {one.number for one in writes}
    version = Version({EU: 1}, 1, EU, 1, deleted=final is None)
    for name in made.knobs.ids:
        for known in made.knobs.paths:
            made.finals[name, known] = Final(
                final if known == path else None, 1, version if known == path else None
            )
    made.replayed = dict(made.finals)
    return made


def logged(loser: AppWrite) -> Logged:
    side = Side("loser", loser.replica, loser.dot, loser.body is None, {loser.replica: loser.dot}, loser.body)
    return Logged(EU, loser.path, "conflict", "winner", (side,))


A, B, C = body(v=0), body(v=1), body(v=2)


def clean() -> History:
    """Two concurrent writes, the earlier one logged as the loser."""
    first, second = write(0, EU, A), write(1, US, B)
    made = history(first, second, final=B)
    made.logged = [logged(first)]
    made.acks = [Ack(US, "1", {EU: 100}, {EU: 100}, settled=False)]
    made.lags = [Lag(US, "1", 5, (5,))]
    return made


def with_final(made: History, name: str, path: str, content: bytes | None) -> History:
    made.finals[name, path] = replace(made.finals[name, path], body=content)
    return made


def raised() -> History:
    made = clean()
    made.crashed = "Traceback"
    return made


def restless() -> History:
    made = clean()
    made.restless = "still moves"
    return made


def diverged() -> History:
    return with_final(clean(), APAC, PATH, A)


def versions_diverged() -> History:
    made = clean()
    made.finals[APAC, PATH] = replace(made.finals[APAC, PATH], version=Version({US: 1}, 1, US, 1))
    return made


def leaked() -> History:
    made = history(write(0, EU, A, path=NOTE), final=None, path=NOTE)
    with_final(made, EU, NOTE, A)
    return with_final(made, US, NOTE, A)


def local_lost() -> History:
    return history(write(0, EU, A, path=NOTE), final=None, path=NOTE)


def invented() -> History:
    return history(write(0, EU, A), final=C)


def invented_field() -> History:
    return history(write(0, EU, body(v=0, n=1)), final=body(v=0, n=7), policy="field-rules")


def lost() -> History:
    made = clean()
    made.logged = []
    return made


def lost_body() -> History:
    made = clean()
    [entry] = made.logged
    made.logged = [replace(entry, sides=(replace(entry.sides[0], body=None),))]
    return made


def logged_as_the_winner_only() -> History:
    made = clean()
    [entry] = made.logged
    made.logged = [replace(entry, winner="loser")]
    return made


def resurrected() -> History:
    return history(write(0, EU, A), write(1, US, None, parents=(0,)), final=A)


def reverted() -> History:
    first, second = write(0, EU, A), write(1, US, B, parents=(0,))
    made = history(first, second, final=A, skew_us=1_000)
    made.logged = [logged(second)]
    return made


def conflict_with_its_own_past() -> History:
    made = clean()
    before = Side("us-101", US, 101, False, {US: 101}, B)
    after = Side("us-102", US, 102, False, {US: 102}, C)
    made.logged.append(Logged(EU, PATH, "conflict", "us-102", (before, after)))
    return made


def earlier_write_won() -> History:
    made = history(write(0, EU, A), write(1, US, B), final=A)
    made.logged = [logged(made.writes[1])]
    return made


def primary_overruled() -> History:
    made = history(write(0, EU, A, path=WALLET), write(1, US, B, path=WALLET), final=B, path=WALLET)
    made.logged = [logged(made.writes[0])]
    return made


def acknowledged_early() -> History:
    made = clean()
    made.acks.append(Ack(US, "2", {EU: 100}, {EU: 99}, settled=False))
    return made


def violation_not_logged() -> History:
    made = clean()
    made.acks.append(Ack(US, "2", {}, {}, settled=False))
    return made


def changed_by_replay() -> History:
    made = clean()
    made.replayed[US, PATH] = replace(made.finals[US, PATH], body=A)
    return made


def rewritten_by_replay() -> History:
    made = clean()
    made.replayed[US, PATH] = replace(made.finals[US, PATH], update_time=2)
    return made


def wrong_lag() -> History:
    made = clean()
    made.lags.append(Lag(US, "2", 6, (5,)))
    return made


def hoarding() -> History:
    made = clean()
    made.held_max = 10 * made.knobs.batch
    return made


def growing_clock() -> History:
    made = clean()
    version = Version({EU: 1, "worker-7": 1}, 1, EU, 1)
    made.finals[EU, PATH] = replace(made.finals[EU, PATH], version=version)
    return made


def flooding() -> History:
    made = clean()
    made.published = 10_000
    return made


def poison_lost() -> History:
    made = clean()
    made.poisoned["9 at us"] = "no event"
    return made


def good_message_buried() -> History:
    made = clean()
    made.buried["9 at us"] += 1
    return made


BROKEN: list[tuple[oracles.Oracle, Callable[[], History]]] = [
    (oracles.nothing_raised, raised),
    (oracles.comes_to_rest, restless),
    (oracles.replicas_equal, diverged),
    (oracles.versions_equal, versions_diverged),
    (oracles.local_stays, leaked),
    (oracles.local_stays, local_lost),
    (oracles.nothing_invented, invented),
    (oracles.nothing_invented, invented_field),
    (oracles.nothing_lost, lost),
    (oracles.nothing_lost, lost_body),
    (oracles.nothing_lost, logged_as_the_winner_only),
    (oracles.nothing_resurrected, resurrected),
    (oracles.superseded_stays_gone, reverted),
    (oracles.conflicts_are_real, conflict_with_its_own_past),
    (oracles.last_write_wins, earlier_write_won),
    (oracles.last_write_wins, primary_overruled),
    (oracles.durable_before_acknowledged, acknowledged_early),
    (oracles.durable_before_acknowledged, violation_not_logged),
    (oracles.replay_changes_nothing, changed_by_replay),
    (oracles.replay_changes_nothing, rewritten_by_replay),
    (oracles.lag_is_true, wrong_lag),
    (oracles.stays_bounded, hoarding),
    (oracles.stays_bounded, growing_clock),
    (oracles.stays_bounded, flooding),
    (oracles.dead_letters_are_right, poison_lost),
    (oracles.dead_letters_are_right, good_message_buried),
]


@pytest.mark.parametrize(
    ("oracle", "broken"), [pytest.param(*case, id=f"{case[0].__name__}: {case[1].__name__}") for case in BROKEN]
)
def test_an_oracle_sees_what_it_is_for(oracle: oracles.Oracle, broken: Callable[[], History]) -> None:
    assert list(oracle(broken()))
    assert not list(oracle(clean()))


def test_every_oracle_is_tried_on_a_broken_history() -> None:
    assert {oracle for oracle, _ in BROKEN} == set(oracles.ORACLES)


def test_nothing_is_wrong_with_the_clean_history() -> None:
    assert oracles.judge(clean()) == []


class TestWhatIsNoFault:
    """What the promises leave open must not be reported, else real findings drown."""

    def test_a_superseded_write_needs_no_log_entry(self) -> None:
        assert not oracles.judge(history(write(0, EU, A), write(1, US, B, parents=(0,)), final=B))

    def test_a_document_may_come_back_by_a_write_that_did_not_know_of_the_delete(self) -> None:
        made = history(
            write(0, EU, A), write(1, US, None, parents=(0,)), write(2, EU, C, parents=(0,)), final=C
        )
        assert not list(oracles.nothing_resurrected(made))

    def test_a_dead_replicas_uncaptured_write_is_not_missed(self) -> None:
        made = history(write(0, EU, A), final=None)
        made.dead, made.captured = EU, set()
        assert not list(oracles.nothing_lost(made))
        assert not list(oracles.last_write_wins(made))

    def test_a_dead_replica_need_not_be_equal(self) -> None:
        made = diverged()
        made.dead = APAC
        assert not list(oracles.replicas_equal(made))

    def test_two_deletes_that_did_not_know_of_each_other_are_one(self) -> None:
        made = history(
            write(0, EU, A),
            write(1, EU, None, parents=(0,)),
            write(2, US, None, parents=(0,)),
            write(3, US, C, parents=(2,)),
            final=C,
        )
        assert not list(oracles.nothing_lost(made))

    def test_a_computed_body_of_written_fields_is_not_invented(self) -> None:
        made = history(
            write(0, EU, body(v=0, n=1)),
            write(1, US, body(v=1, n=0)),
            final=body(v=1, n=1),
            policy="field-rules",
        )
        assert not list(oracles.nothing_invented(made))

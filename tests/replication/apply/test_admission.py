"""The gate: each verdict has its own end, and the first gate that does not admit decides."""

import pytest

from replication.apply import admission
from replication.apply.admission import ADMIT, Applicant, Hold, Redirect, Refuse, Verdict
from replication.apply.sorting import sort_batch
from replication.errors import EventError, Reason
from replication.fleet.model import Fleet, Target
from replication.ports import Message, Received
from tests.support.fleets import NOW, document, fleet, message, text

FLEET = fleet()
TARGET = Target(FLEET, FLEET.replica("apac"))


def batch() -> list[Received]:
    written = document("eu", "docs/1", {"x": text("x")}, update_time=NOW)
    return [Received(message("write", "eu", written), "id", "ack")]


def through(monkeypatch: pytest.MonkeyPatch, *verdicts: Verdict) -> list[Applicant]:
    """Gates with these verdicts, in this order; what each is asked of."""
    asked: list[Applicant] = []

    def gate(verdict: Verdict) -> admission.Gate:
        def judge(applicant: Applicant, _fleet: Fleet) -> Verdict:
            asked.append(applicant)
            return verdict

        return judge

    monkeypatch.setattr(admission, "GATES", tuple(map(gate, verdicts)))
    return asked


def test_what_every_gate_admits_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = through(monkeypatch, ADMIT, ADMIT)
    found = sort_batch(batch(), TARGET)
    assert len(asked) == 2
    assert list(found.documents) == [asked[0].change.path]


def test_a_change_that_is_held_is_let_go_for_the_seconds_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    through(monkeypatch, Hold(60))
    found = sort_batch(batch(), TARGET)
    assert {seconds: [held.ack_id for held in kept] for seconds, kept in found.held.items()} == {60: ["ack"]}
    assert not found.documents


def test_a_refused_change_keeps_its_reason_and_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    through(monkeypatch, Refuse(EventError(Reason.INVALID, "not here")))
    [refusal] = sort_batch(batch(), TARGET).refused
    assert (refusal.error.reason, refusal.path) == (Reason.INVALID, "docs/1")


def test_a_redirected_change_is_published_as_what_the_gate_says(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Message(b"other")
    through(monkeypatch, Redirect(other))
    assert [sent for _, sent in sort_batch(batch(), TARGET).redirected] == [other]


def test_the_first_gate_that_does_not_admit_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = through(monkeypatch, Hold(1), Hold(2))
    assert list(sort_batch(batch(), TARGET).held) == [1]
    assert len(asked) == 1

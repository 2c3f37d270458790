"""The gate before `plan`: whether a change may be decided here at all, and if not, what happens to it.

    Admit      it is planned and applied
    Refuse     it can never be applied here: dead-letter topic, with its reason
    Hold       not now: release the delivery, and look again when it comes back
    Redirect   it has another kind under this configuration: publish that instead

Each capability that restricts what a replica takes is one `Gate` in `GATES`; the first that does not admit
decides. A gate is pure: what it needs to know comes with the change, its rule and the fleet.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, assert_never

from replication.changes.decode import Change
from replication.changes.envelope import Kind
from replication.errors import EventError, Reason
from replication.fleet.model import Fleet, Mode, Rule
from replication.ports import Message


class Admit(NamedTuple):
    """Plan it and apply it."""


class Refuse(NamedTuple):
    """It can never be applied here."""

    error: EventError


class Hold(NamedTuple):
    """Release the delivery for this many seconds; it comes again."""

    seconds: int


class Redirect(NamedTuple):
    """Publish `message` in its place; None: the change needs no successor."""

    message: Message | None


Verdict = Admit | Refuse | Hold | Redirect
ADMIT: Final = Admit()


class Applicant(NamedTuple):
    """A change that asks to be applied: what it came in, and the rule of its document."""

    message: Message
    change: Change
    rule: Rule


Gate = Callable[[Applicant, Fleet], Verdict]


def in_its_mode(applicant: Applicant, _fleet: Fleet) -> Verdict:
    """Whether capture judged the change by the mode that its collection has here.

    While a new configuration is rolled out, capture and a worker may differ: the worker republishes the
    change under its own mode.
    """
    rule, change = applicant.rule, applicant.change
    match rule.mode:
        case Mode.LOCAL:
            return Refuse(
                EventError(
                    Reason.LOCAL_COLLECTION,
                    f"{change.path!r} of {change.source!r} is in a local collection, which never leaves its "
                    "replica: give capture and the workers the same config",
                )
            )
        case Mode.SINGLE_PRIMARY:
            violates = change.source != rule.primary
            return ADMIT if violates is (change.kind is Kind.VIOLATION) else _redirect(applicant)
        case Mode.MULTI_PRIMARY:
            return _redirect(applicant) if change.kind is Kind.VIOLATION else ADMIT
        case _:
            assert_never(rule.mode)


GATES: tuple[Gate, ...] = (in_its_mode,)


def admit(applicant: Applicant, fleet: Fleet) -> Verdict:
    """Ask every gate in turn; the first that does not admit decides."""
    for gate in GATES:
        verdict = gate(applicant, fleet)
        if verdict is not ADMIT:
            return verdict
    return ADMIT


def _redirect(applicant: Applicant) -> Redirect:
    message, change, rule = applicant
    if change.kind is Kind.MERGED:
        # A merge is this system's own: the primary's state overrules it without being sent.
        return Redirect(None)
    attributes = {name: text for name, text in message.attributes.items() if name not in ("heal", "to")}
    if rule.mode is Mode.SINGLE_PRIMARY:
        attributes |= {"kind": Kind.VIOLATION, "to": change.source}
    else:
        attributes |= {"kind": Kind.DELETE if change.version.deleted else Kind.WRITE, "heal": "1"}
    return Redirect(Message(message.data, attributes))

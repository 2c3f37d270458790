"""What capture answers: nothing, or a problem (RFC 9457) that names what is wrong and the remedy.

The status decides what Eventarc does: only 2xx ends its retries.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from starlette.types import Receive, Send

from replication.errors import EventError, FirefleetError, Reason
from workers.runtime.serving import BodyTooLarge, BodyTooSlow, reply, reply_and_close


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an event's sender. `problem` goes into the body; without one the body is empty."""

    status: int
    problem: Mapping[str, str] = field(default_factory=dict)
    closes: bool = False

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Of a problem (RFC 9457)."""
        headers = [(b"content-type", b"application/problem+json")]
        return [*headers, (b"retry-after", b"1")] if self.status == 503 else headers


DONE = Answer(204)
TOO_MANY = Answer(
    503,
    {
        "title": "too many events in flight",
        "remedy": "send it again; where this lasts, give capture more instances",
    },
)
STOPPING = Answer(
    503, {"title": "capture stops", "remedy": "send it again, as Eventarc does: another instance takes it"}
)
SEND_AGAIN = "send it again, as Eventarc does; where this lasts, `firefleet check` says what is down"
REMEDY = {
    Reason.UNKNOWN_REPLICA: "add the database to the config's replicas, or delete its trigger",
    Reason.UNKNOWN_KIND: "point only Firestore document triggers at capture",
    Reason.MISSING_ATTRIBUTE: "send the CloudEvent in binary content mode, its attributes as ce- headers",
}
REMEDY_BODY = "send a DocumentEventData as protobuf, its base64 text, or as application/json its JSON form"


def refusal(error: FirefleetError) -> Answer:
    """What to say when an event was not taken."""
    match error:
        case EventError():
            problem = {"title": "not an event of this fleet", "remedy": REMEDY.get(error.reason, REMEDY_BODY)}
            return Answer(400, {**problem, "reason": error.reason, "detail": str(error)})
        case BodyTooLarge():
            problem = {"title": "too large", "remedy": "keep documents small enough for Eventarc's 512 KB"}
            return Answer(413, {**problem, "detail": str(error)}, closes=True)
        case BodyTooSlow():
            problem = {"title": "too slow", "remedy": SEND_AGAIN}
            return Answer(408, {**problem, "detail": str(error)}, closes=True)
        case _:
            problem = {"title": "not taken now", "remedy": SEND_AGAIN}
            return Answer(503, {**problem, "detail": str(error)})


async def give(answer: Answer, receive: Receive, send: Send) -> None:
    """Send an answer."""
    if not answer.problem:
        await reply(send, answer.status)
        return
    body = orjson.dumps(answer.problem)
    if answer.closes:
        await reply_and_close(receive, send, answer.status, body=body, headers=answer.headers)
    else:
        await reply(send, answer.status, body=body, headers=answer.headers)

"""Dead letters: messages that can never be applied, kept as they came, with the reason.

They go to a topic of their own (`{topic}-dead-letters`) and are acknowledged only after it has them: none is
lost, and none delays another message.
"""

import hashlib

from replication.errors import EventError
from replication.limits import ATTRIBUTE_BYTES_MAX
from replication.ports import Message, Received


def dead_letter(received: Received, error: EventError, target: str) -> Message:
    """The dead letter of a message that `target` cannot apply.

    Data and attributes as received, plus `reason`, `error`, `target`, and an `id` that is the same when the
    same message is delivered to the same target again.
    """
    text = str(error).encode()[:ATTRIBUTE_BYTES_MAX].decode(errors="ignore")
    identity = hashlib.blake2b(f"{received.id}\0{target}".encode(), digest_size=16).hexdigest()
    own = {"reason": error.reason.value, "error": text, "target": target, "id": identity}
    return Message(received.message.data, {**received.message.attributes, **own})

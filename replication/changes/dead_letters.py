"""Dead letters: messages that can never be applied, kept as they came, with the reason.

They go to a separate topic (`{topic}-dead-letters`) and are acknowledged only once it has them: none is
lost, and none delays another message.
"""

import hashlib
from collections.abc import Mapping

from replication.documents.wire import is_document_path
from replication.errors import EventError
from replication.limits import ATTRIBUTE_BYTES_MAX
from replication.ports import Message, Received


def dead_letter(received: Received, error: EventError, target: str, *, path: str = "") -> Message:
    """The dead letter of a message that `target` cannot apply.

    Data and attributes as received, plus `reason`, `error`, `target`, `id`, and where it is known the
    document's relative `path`.
    """
    own = {
        "reason": error.reason.value,
        "error": _bounded(str(error)),
        "target": target,
        "id": letter_id(received, target),
    }
    if path:
        own["path"] = _bounded(path)
    return Message(received.message.data, {**received.message.attributes, **own})


def letter_id(received: Received, target: str) -> str:
    """The `id` of a dead letter: the same when the same message is delivered to the same target again."""
    return hashlib.blake2b(f"{received.id}\0{target}".encode(), digest_size=16).hexdigest()


def path_named(attributes: Mapping[str, str]) -> str:
    """The path that a message's attributes name, if they name one; the message itself has not been checked."""
    path = attributes.get("ce-document", "")
    return path if path and is_document_path(path) else ""


def _bounded(text: str) -> str:
    return text.encode()[:ATTRIBUTE_BYTES_MAX].decode(errors="ignore")

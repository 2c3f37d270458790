"""An event's HTTP body as raw protobuf, whichever way it was sent.

Eventarc sends the bytes of a `DocumentEventData`; Firestore's emulator sends their base64 text, under the same
content type. The bytes show which: a `DocumentEventData` begins with the tag of its field 1, 2 or 3, all
length-delimited, and none of the three is in base64's alphabet.
"""

import binascii

TAGS = frozenset({0x0A, 0x12, 0x1A})
"""value, old_value, update_mask: field number shifted by three, wire type 2."""


def protobuf_body(body: bytes) -> bytes:
    """The protobuf bytes of an event's body. `ValueError` when it is neither protobuf nor base64."""
    if not body or body[0] in TAGS:
        return body
    return binascii.a2b_base64(body, strict_mode=True)

"""Limits of the platform: Firestore's and Pub/Sub's, each once, with its source.

Limits that are this project's own choices stand where they are used.
"""

DOCUMENT_BYTES_MAX = 1_048_576
"""One document (https://firebase.google.com/docs/firestore/quotas)."""
VALUE_BYTES_MAX = 1_048_487
"""One field's value: a document less 89 bytes (same page)."""
COMMIT_BYTES_MAX = 10 * 1024 * 1024
"""One request to Firestore (same page). Its emulator takes 4 MiB."""
MESSAGE_BYTES_MAX = 10_000_000
"""One Pub/Sub message, and one publish request (https://cloud.google.com/pubsub/quotas#resource_limits)."""
ATTRIBUTES_MAX = 100
"""Attributes of one message (same page)."""
ATTRIBUTE_KEY_BYTES_MAX = 256
"""The name of one attribute (same page)."""
ATTRIBUTE_BYTES_MAX = 1_024
"""The value of one attribute (same page). The emulator takes more."""
FILTER_BYTES_MAX = 256
"""The text of a subscription's filter (same page)."""
ACK_DEADLINE_S_MIN, ACK_DEADLINE_S_MAX = 10, 600
"""A subscription's acknowledgement deadline (https://cloud.google.com/pubsub/docs/lease-management)."""
DELIVERY_ATTEMPTS_MAX = 100
"""The most that a dead-letter policy allows (https://cloud.google.com/pubsub/docs/handling-failures)."""

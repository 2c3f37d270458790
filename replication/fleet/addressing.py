"""Whom a message is for: a subscription's filter says it in the cloud, and each worker checks it again.

Emulators ignore filters, so every worker asks `addressed` of each message it receives.
"""

from collections.abc import Mapping

from replication.errors import ConfigError
from replication.limits import FILTER_BYTES_MAX


def addressed(attributes: Mapping[str, str], replica: str) -> bool:
    """Whether a message with these attributes is for a replica."""
    receiver = attributes.get("to")
    if receiver is not None:
        return receiver == replica
    return attributes.get("replica") != replica or attributes.get("heal") == "1"


def subscription_filter(replica: str) -> str:
    """The filter of a replica's subscription: what is for it, and what has no attributes at all.

    A message without attributes must reach some worker to become a dead letter: do not filter for what is
    known.
    """
    text = (
        f'(NOT attributes:to AND (NOT attributes.replica = "{replica}" OR attributes.heal = "1"))'
        f' OR attributes.to = "{replica}"'
    )
    if len(text.encode()) > FILTER_BYTES_MAX:
        raise ConfigError(
            f"the subscription filter of replica '{replica}' is longer than Pub/Sub's "
            f"{FILTER_BYTES_MAX} bytes; give the replica a shorter id"
        )
    return text

"""Whom a message is for: what a subscription's filter says in the cloud, and a worker checks by itself.

Emulators ignore filters, so every worker asks `addressed` of each message it receives.
"""

from collections.abc import Mapping


def addressed(attributes: Mapping[str, str], replica: str) -> bool:
    """Whether a message with these attributes is for a replica."""
    receiver = attributes.get("to")
    if receiver is not None:
        return receiver == replica
    return attributes.get("replica") != replica or attributes.get("heal") == "1"

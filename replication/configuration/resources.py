"""What a fleet needs in Google Cloud, by its configuration: topics and subscriptions, and how they are set."""

from collections.abc import Mapping

from replication.configuration.analytics import Analytics
from replication.configuration.parse import Configuration
from replication.ports import SubscriptionSettings


def topics(configuration: Configuration) -> tuple[str, ...]:
    """The ids of the topics a fleet needs."""
    fleet = configuration.fleet
    needed: tuple[str, ...] = (fleet.topic, fleet.dead_letter_topic)
    if (analytics := configuration.analytics) is not None:
        needed += (analytics.topic, analytics.dead_letters)
        if analytics.warehouse is not None:
            needed += (analytics.warehouse.topic,)
    return needed


def subscriptions(configuration: Configuration) -> Mapping[str, SubscriptionSettings]:
    """The subscriptions a fleet needs: one for each replica, and one that keeps the dead letters.

    Without the last, Pub/Sub would throw away what is published to the dead-letter topic.
    """
    fleet = configuration.fleet
    wanted = {
        fleet.subscription(replica): SubscriptionSettings(
            topic=fleet.topic,
            filter=fleet.subscription_filter(replica),
            dead_letter_topic=fleet.dead_letter_topic,
        )
        for replica in fleet.replicas
    }
    wanted[fleet.dead_letter_subscription] = SubscriptionSettings(topic=fleet.dead_letter_topic)
    if (analytics := configuration.analytics) is not None:
        wanted |= _analytics_subscriptions(analytics, tuple(fleet.replicas))
    return wanted


def _analytics_subscriptions(
    analytics: Analytics, replicas: tuple[str, ...]
) -> Mapping[str, SubscriptionSettings]:
    # The warehouse's topic has none here: a BigQuery subscription drains it.
    wanted = {
        analytics.subscription(replica): SubscriptionSettings(
            topic=analytics.topic,
            filter=analytics.subscription_filter(replica, replicas),
            ack_deadline=analytics.ack_deadline_s,
            dead_letter_topic=analytics.dead_letters,
        )
        for replica in replicas
    }
    wanted[analytics.dead_letter_subscription] = SubscriptionSettings(topic=analytics.dead_letters)
    return wanted


_COMPARED = ("topic", "filter", "ack_deadline", "retention", "dead_letter_topic", "delivery_attempts")


def differences(wanted: SubscriptionSettings, found: SubscriptionSettings) -> list[str]:
    """The names of the settings that are not as wanted; how fast Pub/Sub backs off is the operator's choice."""
    return [name for name in _COMPARED if getattr(wanted, name) != getattr(found, name)]

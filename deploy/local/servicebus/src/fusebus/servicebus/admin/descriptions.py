"""Settings and counts of queues, topics and subscriptions as the API's descriptions."""

from dataclasses import dataclass
from xml.etree.ElementTree import Element
from xml.sax.saxutils import quoteattr

from fusebus.servicebus.admin.atom import COUNTS, description, element
from fusebus.servicebus.admin.authorization import describe_rules
from fusebus.servicebus.admin.durations import format_instant
from fusebus.servicebus.admin.fields import Settings, duplicates, read_settings, setting
from fusebus.servicebus.engine import CorrelationFilter, Queue, RuntimeCounts, Subscription, Topic
from fusebus.servicebus.engine.settings import QueueSettings, SubscriptionSettings
from fusebus.servicebus.tier import Tier


@dataclass(frozen=True, slots=True)
class Site:
    """What descriptions say that no entity knows: the host that a client reached, the tier, and the time of asking.

    Seconds since the epoch, UTC.
    """

    host: str
    tier: Tier
    now: float

    def read(self, found: Element, current: Settings) -> Settings:
        """`current` with what a description says; raises InvalidArgument."""
        return read_settings(found, current, self.tier, self.now)


def describe_queue(queue: Queue, site: Site) -> str:
    settings, counts = queue.settings, queue.counts()
    return description(
        "QueueDescription",
        setting(settings, "LockDuration"),
        setting(settings, "MaxSizeInMegabytes"),
        *duplicates(settings),
        setting(settings, "RequiresSession"),
        setting(settings, "DefaultMessageTimeToLive"),
        setting(settings, "DeadLetteringOnMessageExpiration"),
        setting(settings, "MaxDeliveryCount"),
        setting(settings, "EnableBatchedOperations"),
        element("SizeInBytes", counts.size_bytes),
        element("MessageCount", counts.total),
        element("IsAnonymousAccessible", False),
        describe_rules(settings.authorization_rules),
        setting(settings, "Status"),
        *_forwards(settings, site),
        setting(settings, "UserMetadata"),
        *_life(queue),
        element("SupportOrdering", True),
        _count_details(counts),
        setting(settings, "AutoDeleteOnIdle"),
        setting(settings, "EnablePartitioning"),
        element("EntityAvailabilityStatus", "Available"),
        setting(settings, "EnableExpress"),
        _max_message(settings.max_message_kilobytes, site.tier),
    )


def describe_topic(topic: Topic, site: Site) -> str:
    settings, counts = topic.settings, topic.counts()
    return description(
        "TopicDescription",
        setting(settings, "DefaultMessageTimeToLive"),
        setting(settings, "MaxSizeInMegabytes"),
        *duplicates(settings),
        setting(settings, "EnableBatchedOperations"),
        element("SizeInBytes", counts.size_bytes),
        setting(settings, "FilteringMessagesBeforePublishing"),
        element("IsAnonymousAccessible", False),
        describe_rules(settings.authorization_rules),
        setting(settings, "Status"),
        setting(settings, "UserMetadata"),
        *_life(topic),
        setting(settings, "SupportOrdering"),
        _count_details(counts),
        element("SubscriptionCount", len(topic.subscriptions)),
        *_filter_counts(topic),
        setting(settings, "AutoDeleteOnIdle"),
        setting(settings, "EnablePartitioning"),
        element("EntityAvailabilityStatus", "Available"),
        element("EnableSubscriptionPartitioning", False),
        setting(settings, "EnableExpress"),
        _max_message(settings.max_message_kilobytes, site.tier),
    )


def describe_subscription(subscription: Subscription, site: Site) -> str:
    settings, counts = subscription.settings, subscription.counts()
    return description(
        "SubscriptionDescription",
        setting(settings, "LockDuration"),
        setting(settings, "RequiresSession"),
        setting(settings, "DefaultMessageTimeToLive"),
        setting(settings, "DeadLetteringOnMessageExpiration"),
        setting(settings, "DeadLetteringOnFilterEvaluationExceptions"),
        element("MessageCount", counts.total),
        setting(settings, "MaxDeliveryCount"),
        setting(settings, "EnableBatchedOperations"),
        setting(settings, "Status"),
        *_forwards(settings, site),
        setting(settings, "UserMetadata"),
        *_life(subscription),
        _count_details(counts),
        setting(settings, "AutoDeleteOnIdle"),
        element("EntityAvailabilityStatus", "Available"),
    )


def _filter_counts(topic: Topic) -> tuple[str, str]:
    """True and False count as SQL, which they are in the service."""
    filters = [rule.filter for subscription in topic.subscriptions.values() for rule in subscription.rules.values()]
    correlations = sum(isinstance(found, CorrelationFilter) for found in filters)
    return element("SqlFilterCount", len(filters) - correlations), element("CorrelationFilterCount", correlations)


def _forwards(settings: QueueSettings | SubscriptionSettings, site: Site) -> tuple[str, ...]:
    targets = {
        "ForwardTo": settings.forward_to,
        "ForwardDeadLetteredMessagesTo": settings.forward_dead_lettered_to,
    }
    return tuple(element(name, f"sb://{site.host}/{path}") for name, path in targets.items() if path is not None)


def _max_message(kilobytes: int | None, tier: Tier) -> str:
    return element("MaxMessageSizeInKilobytes", kilobytes or tier.max_message_bytes // 1024)


def _life(entity: Queue | Topic | Subscription) -> tuple[str, ...]:
    return (
        element("CreatedAt", format_instant(entity.created_at)),
        element("UpdatedAt", format_instant(entity.updated_at)),
        element("AccessedAt", format_instant(entity.accessed_at)),
    )


def _count_details(counts: RuntimeCounts) -> str:
    """The service counts deferred messages among the active ones.

    The one place with a prefix: the JavaScript SDK looks for the service's own.
    """
    figures = {
        "ActiveMessageCount": counts.active + counts.deferred,
        "DeadLetterMessageCount": counts.dead_letter,
        "ScheduledMessageCount": counts.scheduled,
        "TransferMessageCount": counts.transfer,
        "TransferDeadLetterMessageCount": counts.transfer_dead_letter,
    }
    inside = "".join(element(f"d2p1:{name}", figure) for name, figure in figures.items())
    return f"<CountDetails xmlns:d2p1={quoteattr(COUNTS)}>{inside}</CountDetails>"

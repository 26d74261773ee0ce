"""A subscription: which messages of its topic it takes, and as what."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.entities import SUBSCRIPTIONS, EntityKind
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.holders import Holder
from fusebus.servicebus.engine.messages import Message
from fusebus.servicebus.engine.meters import Meter
from fusebus.servicebus.engine.records import Record, dead_letter_reason, forwarded_expiry
from fusebus.servicebus.engine.settings import Rule, SubscriptionSettings
from fusebus.servicebus.engine.topic import Topic

RULE_NAME_PROPERTY: Final = "RuleName"  # tells the copies apart that rules with actions make


class Subscription(Holder):
    kind = EntityKind.SUBSCRIPTION
    settings: SubscriptionSettings

    def __init__(
        self, core: Core, number: int, topic: Topic, name: str, settings: SubscriptionSettings, rules: Iterable[Rule]
    ) -> None:
        super().__init__(core, number, topic.path + SUBSCRIPTIONS + name, settings, Meter(topic.meter))
        self.topic = topic
        self.name = name
        self.rules = {rule.name.lower(): rule for rule in rules}
        self.apply(settings)

    def apply(self, settings: SubscriptionSettings) -> None:
        self.settings = settings
        self._apply(settings)

    def copy(self, original: Record, topic_ttl_seconds: float) -> None:
        """Enqueue what the rules make of a message that came to the topic."""
        if not self.settings.status.can_send:
            return
        seen = _with_changes(original)
        try:
            copies = list(self._copies(seen, original))
        except EngineError as error:
            self._rule_failed(original, error)
            return
        limit = min(topic_ttl_seconds, self.settings.ttl_seconds)
        for message in copies:
            self.take(_copied(original, message, forwarded_expiry(original, limit)))

    def _copies(self, message: Message, original: Record) -> Iterator[Message]:
        """One for all rules without an action, one more for each with one; `original` has what the topic knows."""
        taken = False
        for rule in self.rules.values():
            if rule.action is None:
                if not taken and rule.filter.matches(message, original):
                    taken = True
                    yield message
            elif rule.filter.matches(message, original):
                changes = rule.action.changes(message, original)
                named: Mapping[str, object] = {**changes.properties, RULE_NAME_PROPERTY: rule.name}
                yield self._core.rewrite(message, replace(changes, properties=named))

    def _rule_failed(self, original: Record, error: EngineError) -> None:
        if self.settings.dead_letter_on_filter_error:
            record = _copied(original, original.message)
            self.mailbox.bury_new(record, dead_letter_reason("FilterEvaluationException", str(error)))


def _with_changes(original: Record) -> Message:
    """What rules see: the properties that a forwarded dead letter was given are its own by now."""
    if not original.modified:
        return original.message
    message = original.message
    return replace(message, application_properties={**message.application_properties, **original.modified})


def _copied(original: Record, message: Message, expires_at: float = float("inf")) -> Record:
    return Record(
        message,
        original.enqueued_at,
        expires_at,
        enqueued_sequence_number=original.enqueued_sequence_number,
        modified=original.modified,
        dead_letter_source=original.dead_letter_source,
        hops=original.hops,
    )

"""The entities of one namespace: created, changed, listed and deleted by name."""
from collections.abc import Sequence

from fusebus.servicebus.engine.entities import Entity
from fusebus.servicebus.engine.settings import QueueSettings, Rule, SubscriptionSettings, TopicSettings


class Namespace:
    """Names are case-insensitive; create raises EntityExists, the others EntityNotFound, all InvalidArgument."""

    def create_queue(self, name: str, settings: QueueSettings = QueueSettings()) -> Entity: ...
    def create_topic(self, name: str, settings: TopicSettings = TopicSettings()) -> Entity: ...
    def create_subscription(
        self,
        topic: str,
        name: str,
        settings: SubscriptionSettings = SubscriptionSettings(),
        rules: Sequence[Rule] = (Rule(),),
    ) -> Entity: ...
    def create_rule(self, topic: str, subscription: str, rule: Rule) -> None: ...
    def delete_rule(self, topic: str, subscription: str, name: str) -> None: ...
    def delete(self, path: str) -> None: ...

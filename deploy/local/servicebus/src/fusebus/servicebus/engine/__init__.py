"""The broker without a network: pure, single-threaded, on an injected clock."""

from fusebus.servicebus.engine.consumer import Consumer
from fusebus.servicebus.engine.engine import Engine
from fusebus.servicebus.engine.entities import Entity, EntityKind, RuntimeCounts
from fusebus.servicebus.engine.errors import (
    EngineError,
    EntityDisabled,
    EntityExists,
    EntityNotFound,
    InvalidArgument,
    MessageLockLost,
    MessageNotFound,
    NotAllowed,
    QuotaExceeded,
)
from fusebus.servicebus.engine.filters import CorrelationFilter, FalseFilter, Filter, SqlFilter, TrueFilter
from fusebus.servicebus.engine.messages import Delivery, Message, MessageState, ReceiveMode
from fusebus.servicebus.engine.namespace import Namespace
from fusebus.servicebus.engine.settings import (
    EntityStatus,
    QueueSettings,
    Rule,
    SubscriptionSettings,
    TopicSettings,
)

__all__ = [
    "Consumer",
    "CorrelationFilter",
    "Delivery",
    "Engine",
    "EngineError",
    "Entity",
    "EntityDisabled",
    "EntityExists",
    "EntityKind",
    "EntityNotFound",
    "EntityStatus",
    "FalseFilter",
    "Filter",
    "InvalidArgument",
    "Message",
    "MessageLockLost",
    "MessageNotFound",
    "MessageState",
    "Namespace",
    "NotAllowed",
    "QueueSettings",
    "QuotaExceeded",
    "ReceiveMode",
    "Rule",
    "RuntimeCounts",
    "SqlFilter",
    "SubscriptionSettings",
    "TopicSettings",
    "TrueFilter",
]

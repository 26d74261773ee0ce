"""The broker without a network: pure, single-threaded, on an injected clock."""

from fusebus.servicebus.engine.actions import Action, Changes, SqlAction, apply_changes
from fusebus.servicebus.engine.consumer import Consumer
from fusebus.servicebus.engine.engine import Engine
from fusebus.servicebus.engine.entities import Entity, EntityKind, RuntimeCounts
from fusebus.servicebus.engine.errors import (
    EngineError,
    EntityDisabled,
    EntityExists,
    EntityNotFound,
    FilterError,
    InvalidArgument,
    MessageLockLost,
    MessageNotFound,
    MessageTooLarge,
    NotAllowed,
    OperationTimeout,
    QuotaExceeded,
    SessionCannotBeLocked,
    SessionLockLost,
)
from fusebus.servicebus.engine.filters import CorrelationFilter, FalseFilter, Filter, SqlFilter, TrueFilter
from fusebus.servicebus.engine.journal import DuplicateImage, EntityImage, Journal, SessionImage, Snapshot
from fusebus.servicebus.engine.messages import Delivery, Message, MessageState, ReceiveMode
from fusebus.servicebus.engine.namespace import Namespace
from fusebus.servicebus.engine.queues import Queue
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.rights import AuthorizationRule, Right
from fusebus.servicebus.engine.sessions import SessionConsumer, SessionWait
from fusebus.servicebus.engine.settings import (
    EntityStatus,
    QueueSettings,
    Rule,
    SubscriptionSettings,
    TopicSettings,
)
from fusebus.servicebus.engine.sql import SqlSyntaxError
from fusebus.servicebus.engine.subscription import Subscription
from fusebus.servicebus.engine.topic import Topic

__all__ = [
    "Action",
    "AuthorizationRule",
    "Changes",
    "Consumer",
    "CorrelationFilter",
    "Delivery",
    "DuplicateImage",
    "Engine",
    "EngineError",
    "Entity",
    "EntityDisabled",
    "EntityExists",
    "EntityImage",
    "EntityKind",
    "EntityNotFound",
    "EntityStatus",
    "FalseFilter",
    "Filter",
    "FilterError",
    "InvalidArgument",
    "Journal",
    "Message",
    "MessageLockLost",
    "MessageNotFound",
    "MessageState",
    "MessageTooLarge",
    "Namespace",
    "NotAllowed",
    "OperationTimeout",
    "Queue",
    "QueueSettings",
    "QuotaExceeded",
    "ReceiveMode",
    "Record",
    "Right",
    "Rule",
    "RuntimeCounts",
    "SessionCannotBeLocked",
    "SessionConsumer",
    "SessionImage",
    "SessionLockLost",
    "SessionWait",
    "Snapshot",
    "SqlAction",
    "SqlFilter",
    "SqlSyntaxError",
    "Subscription",
    "SubscriptionSettings",
    "Topic",
    "TopicSettings",
    "TrueFilter",
    "apply_changes",
]

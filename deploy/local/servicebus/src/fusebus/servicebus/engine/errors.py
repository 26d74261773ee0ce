"""The few ways in which the engine says no; fronts translate them to AMQP conditions and HTTP statuses."""


class EngineError(Exception):
    """Base of all refusals; `str(error)` is the sentence shown to the client."""


class EntityNotFound(EngineError):
    """No queue, topic, subscription, rule or sub-queue has that name (amqp:not-found, HTTP 404)."""


class EntityExists(EngineError):
    """The name is taken (com.microsoft:entity-already-exists, HTTP 409)."""


class EntityDisabled(EngineError):
    """The entity's status forbids this direction (com.microsoft:entity-disabled)."""


class NotAllowed(EngineError):
    """The operation makes no sense there: receiving from a topic, sending to a subscription (amqp:not-allowed)."""


class InvalidArgument(EngineError):
    """A value is outside what the broker can do (com.microsoft:argument-error, HTTP 400)."""


class QuotaExceeded(EngineError):
    """The entity would grow beyond its maximum size (amqp:resource-limit-exceeded)."""


class MessageLockLost(EngineError):
    """The lock token is unknown: expired, settled or never given (com.microsoft:message-lock-lost)."""


class MessageNotFound(EngineError):
    """No such deferred or scheduled message (com.microsoft:message-not-found)."""


class MessageTooLarge(EngineError):
    """Larger than the tier or the entity allows (amqp:link:message-size-exceeded)."""


class SessionLockLost(EngineError):
    """The session is not held by who asks: expired, released or never accepted (com.microsoft:session-lock-lost)."""


class SessionCannotBeLocked(EngineError):
    """Another receiver holds the session (com.microsoft:session-cannot-be-locked)."""


class OperationTimeout(EngineError):
    """No session became available in time (com.microsoft:timeout)."""


class FilterError(EngineError):
    """A rule's filter or action cannot be evaluated for a message: a division by zero, a string minus a number."""

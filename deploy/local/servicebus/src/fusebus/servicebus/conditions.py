"""How refusals look to a client: AMQP error conditions and the status codes of request-response nodes."""

from __future__ import annotations

from dataclasses import dataclass

from fusebus.servicebus.amqp.performatives import Error
from fusebus.servicebus.engine.errors import (
    EngineError,
    EntityDisabled,
    EntityExists,
    EntityNotFound,
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

DECODE_ERROR = "amqp:decode-error"
DETACH_FORCED = "amqp:link:detach-forced"
FRAMING_ERROR = "amqp:connection:framing-error"
INTERNAL_ERROR = "amqp:internal-error"
INVALID_FIELD = "amqp:invalid-field"
MESSAGE_SIZE_EXCEEDED = "amqp:link:message-size-exceeded"
NOT_ALLOWED = "amqp:not-allowed"
NOT_FOUND = "amqp:not-found"
NOT_IMPLEMENTED = "amqp:not-implemented"
RESOURCE_LIMIT = "amqp:resource-limit-exceeded"
UNAUTHORIZED = "amqp:unauthorized-access"
ARGUMENT_ERROR = "com.microsoft:argument-error"
ENTITY_DISABLED = "com.microsoft:entity-disabled"
LOCK_LOST = "com.microsoft:message-lock-lost"
SERVER_BUSY = "com.microsoft:server-busy"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One refusal in both of its forms."""

    condition: str
    status: int


_MEANINGS: dict[type[EngineError], Meaning] = {
    EntityNotFound: Meaning(NOT_FOUND, 404),
    EntityExists: Meaning("com.microsoft:entity-already-exists", 409),
    EntityDisabled: Meaning(ENTITY_DISABLED, 403),
    NotAllowed: Meaning(NOT_ALLOWED, 400),
    InvalidArgument: Meaning(ARGUMENT_ERROR, 400),
    QuotaExceeded: Meaning(RESOURCE_LIMIT, 403),
    MessageLockLost: Meaning(LOCK_LOST, 410),
    MessageNotFound: Meaning("com.microsoft:message-not-found", 404),
    MessageTooLarge: Meaning(MESSAGE_SIZE_EXCEEDED, 403),
    SessionLockLost: Meaning("com.microsoft:session-lock-lost", 410),
    SessionCannotBeLocked: Meaning("com.microsoft:session-cannot-be-locked", 410),
    OperationTimeout: Meaning("com.microsoft:timeout", 408),
}


class Refusal(Exception):
    """The front says no to a request, a link or a connection."""

    def __init__(self, condition: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.condition = condition
        self.status = status


def refusal_of(error: EngineError) -> Refusal:
    """What the engine's refusal is called on the wire."""
    meaning = next((_MEANINGS[kind] for kind in type(error).__mro__ if kind in _MEANINGS), Meaning(INTERNAL_ERROR, 500))
    return Refusal(meaning.condition, str(error) or type(error).__name__, meaning.status)


def error_of(error: Refusal | EngineError) -> Error:
    """The AMQP error of a refusal."""
    refusal = refusal_of(error) if isinstance(error, EngineError) else error
    return Error(condition=refusal.condition, description=str(refusal))

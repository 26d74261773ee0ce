"""What a receiver's delivery states mean to the engine, and how each is confirmed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fusebus.servicebus.amqp.performatives import Accepted, Error, Modified, Rejected, Released
from fusebus.servicebus.engine.engine import Engine
from fusebus.servicebus.engine.messages import Delivery

REASON, DESCRIPTION = "DeadLetterReason", "DeadLetterErrorDescription"
# As the service answers: a rejection that carried an error would mean that dead-lettering failed.
_CONFIRM_COMPLETE = Accepted().encoded()
_CONFIRM_ABANDON = Modified(delivery_failed=None, undeliverable_here=False).encoded()
_CONFIRM_DEFER = Modified(delivery_failed=None, undeliverable_here=True).encoded()
_CONFIRM_DEAD_LETTER = Rejected().encoded()
_CONFIRM_RELEASE = Released().encoded()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A settlement to apply and the delivery state that confirms it."""

    confirmation: bytes
    settle: Callable[[Engine, str, UUID], None]

    def apply(self, engine: Engine, path: str, delivery: Delivery) -> None:
        """Settles; raises EngineError."""
        assert delivery.lock_token is not None
        self.settle(engine, path, delivery.lock_token)


COMPLETE = Outcome(_CONFIRM_COMPLETE, Engine.complete)
RELEASE = Outcome(_CONFIRM_RELEASE, Engine.release)


def abandon(properties: Mapping[str, Any] | None = None) -> Outcome:
    """Back into the queue with a higher delivery count."""
    return Outcome(_CONFIRM_ABANDON, lambda engine, path, token: engine.abandon(path, token, properties))


def defer(properties: Mapping[str, Any] | None = None) -> Outcome:
    """Put aside."""
    return Outcome(_CONFIRM_DEFER, lambda engine, path, token: engine.defer(path, token, properties))


def dead_letter(reason: str | None, description: str | None, properties: Mapping[str, Any] | None = None) -> Outcome:
    """Moved to the dead-letter queue."""
    return Outcome(
        _CONFIRM_DEAD_LETTER,
        lambda engine, path, token: engine.dead_letter(path, token, reason, description, properties),
    )


def outcome_of(state: Any) -> Outcome | None:
    """The outcome of a delivery state; None if the state is not final."""
    if isinstance(state, Accepted):
        return COMPLETE
    if isinstance(state, Released):
        return RELEASE
    if isinstance(state, Rejected):
        return _rejection(state.error)
    if isinstance(state, Modified):
        properties = _text_keys(state.message_annotations or {})
        return defer(properties) if state.undeliverable_here else abandon(properties)
    return None


def _rejection(error: Error | None) -> Outcome:
    if not isinstance(error, Error):
        return dead_letter(None, None)
    info = dict(error.info or {})
    reason, description = info.pop(REASON, None), info.pop(DESCRIPTION, error.description)
    return dead_letter(_text(reason), _text(description), _text_keys(info))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _text_keys(properties: dict[Any, Any]) -> dict[str, Any] | None:
    return {str(key): value for key, value in properties.items()} or None

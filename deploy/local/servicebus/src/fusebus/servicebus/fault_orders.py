"""Orders for failures as POST /$faults takes them: one JSON object each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from fusebus.servicebus.conditions import DETACH_FORCED, LOCK_LOST, SERVER_BUSY

if TYPE_CHECKING:
    from fusebus.servicebus.broker import Broker

Order = Mapping[str, Any]


def _count(order: Order) -> int:
    count = order.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError("count must be a whole number, at least 1")
    return count


def _number(order: Order, name: str) -> float:
    value = order.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number")
    return float(value)


def _text(order: Order, name: str) -> str | None:
    """None if nothing is said of it."""
    value = order.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a string")
    return value


def _condition(order: Order, default: str) -> str:
    condition = _text(order, "condition")
    if condition is None:
        return default
    if not condition.isascii():  # AMQP's symbols are
        raise ValueError("condition must be ASCII")
    return condition


def _detach(broker: Broker, order: Order) -> int:
    return broker.detach_links(_text(order, "entity"), _condition(order, DETACH_FORCED))


def _lose_locks(broker: Broker, order: Order) -> int:
    return broker.lose_locks(_text(order, "entity"))


def _reset(broker: Broker, order: Order) -> int:
    return broker.reset_connections(_text(order, "entity"))


def _fail_renewals(broker: Broker, order: Order) -> int:
    broker.faults.fail_renewals(_count(order), _entity(broker, order), _condition(order, SERVER_BUSY))
    return _count(order)


def _fail_sends(broker: Broker, order: Order) -> int:
    broker.faults.fail_sends(_count(order), _entity(broker, order), _condition(order, SERVER_BUSY))
    return _count(order)


def _fail_settlements(broker: Broker, order: Order) -> int:
    broker.faults.fail_settlements(_count(order), _entity(broker, order), _condition(order, LOCK_LOST))
    return _count(order)


def _drop(broker: Broker, order: Order) -> int:
    broker.faults.drop_acknowledgements(_count(order), _entity(broker, order))
    return _count(order)


def _throttle(broker: Broker, order: Order) -> int:
    broker.faults.throttle(_number(order, "per_second"), _entity(broker, order))
    return 0


def _latency(broker: Broker, order: Order) -> int:
    broker.faults.delay(_number(order, "seconds"))
    return 0


def _clear(broker: Broker, order: Order) -> int:
    broker.faults.clear()
    return 0


def _entity(broker: Broker, order: Order) -> str | None:
    """The entity's path; raises EntityNotFound."""
    entity = _text(order, "entity")
    return None if entity is None else broker.engine.resolve(entity).path


ACTIONS: Final[dict[str, Callable[[Broker, Order], int]]] = {
    "detach": _detach,
    "lose-locks": _lose_locks,
    "reset-connections": _reset,
    "fail-renewals": _fail_renewals,
    "fail-sends": _fail_sends,
    "fail-settlements": _fail_settlements,
    "drop-acknowledgements": _drop,
    "throttle": _throttle,
    "latency": _latency,
    "clear": _clear,
}


def carry_out(broker: Broker, order: Order) -> int:
    """How many links, locks, connections or operations it concerns; raises ValueError, KeyError, EngineError."""
    action = ACTIONS.get(str(order.get("action")))
    if action is None:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}")
    return action(broker, order)

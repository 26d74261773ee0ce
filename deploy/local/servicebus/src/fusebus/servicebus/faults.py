"""Failures on order, for tests of clients: what the broker shall get wrong, how often and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fusebus.servicebus.conditions import LOCK_LOST, SERVER_BUSY, Refusal

BUSY_STATUS = 503


@dataclass(slots=True)
class _Order:
    entity: str | None
    left: int
    condition: str

    def takes(self, entity: str) -> bool:
        return self.left > 0 and (self.entity is None or self.entity == entity.lower())


class _Orders:
    """Orders of one kind, used up in the order in which they were given."""

    def __init__(self) -> None:
        self.orders: list[_Order] = []

    def give(self, count: int, entity: str | None, condition: str = "") -> None:
        if count < 1:
            raise ValueError("count must be at least 1")
        self.orders.append(_Order(entity.lower() if entity else None, count, condition))

    def take(self, entity: str) -> _Order | None:
        for order in self.orders:
            if order.takes(entity):
                order.left -= 1
                if not order.left:
                    self.orders.remove(order)
                return order
        return None


class _Throttle:
    """At most so many messages per second; what was not used in a second is not saved up for later ones."""

    def __init__(self, per_second: float, now: float) -> None:
        self.per_second = per_second
        self._allowance, self._checked = max(1.0, per_second), now

    def admits(self, messages: int, now: float) -> bool:
        most = max(1.0, self.per_second)
        self._allowance = min(most, self._allowance + max(0.0, now - self._checked) * self.per_second)
        self._checked = now
        if self._allowance < min(messages, most):
            return False
        self._allowance -= messages
        return True


@dataclass(slots=True)
class Faults:
    """Orders name an entity's path, or None for all; `clock` gives seconds."""

    clock: Callable[[], float] = lambda: 0.0
    latency_seconds: float = 0.0
    """Everything sent to AMQP clients is held back so long."""
    _renewals: _Orders = field(default_factory=_Orders)
    _sends: _Orders = field(default_factory=_Orders)
    _settlements: _Orders = field(default_factory=_Orders)
    _dropped: _Orders = field(default_factory=_Orders)
    _throttles: dict[str | None, _Throttle] = field(default_factory=dict)

    # --- giving orders

    def fail_renewals(self, count: int = 1, entity: str | None = None, condition: str = SERVER_BUSY) -> None:
        """The next `count` lock renewals (of one entity, or of any) are refused with `condition`."""
        self._renewals.give(count, entity, condition)

    def fail_sends(self, count: int = 1, entity: str | None = None, condition: str = SERVER_BUSY) -> None:
        """The next `count` transfers (single messages or batches) are refused with `condition` and not enqueued."""
        self._sends.give(count, entity, condition)

    def fail_settlements(self, count: int = 1, entity: str | None = None, condition: str = LOCK_LOST) -> None:
        """The next `count` settlements are refused with `condition`; the messages stay locked."""
        self._settlements.give(count, entity, condition)

    def drop_acknowledgements(self, count: int = 1, entity: str | None = None) -> None:
        """The next `count` transfers or settlements take effect, but the client is never told."""
        self._dropped.give(count, entity)

    def throttle(self, per_second: float, entity: str | None = None) -> None:
        """From now on sends above `per_second` messages are refused as server-busy; 0 ends it."""
        if per_second < 0:
            raise ValueError("per_second must not be negative")
        self._throttles.pop(key := entity.lower() if entity else None, None)
        if per_second:
            self._throttles[key] = _Throttle(per_second, self.clock())

    def delay(self, seconds: float) -> None:
        """From now on everything that is sent to AMQP clients is held back for `seconds`; 0 ends it."""
        if seconds < 0:
            raise ValueError("seconds must not be negative")
        self.latency_seconds = seconds

    def clear(self) -> None:
        """Forget all orders."""
        self.latency_seconds = 0.0
        for orders in (self._renewals, self._sends, self._settlements, self._dropped):
            orders.__init__()  # type: ignore[misc]
        self._throttles.clear()

    # --- obeying them

    def before_renewal(self, entity: str) -> None:
        """Raises the Refusal that was ordered for a renewal at `entity`, if one is left."""
        self._refuse(self._renewals, entity, "renewal")

    def before_send(self, entity: str, messages: int = 1) -> None:
        """Raises the Refusal that was ordered for a send to `entity`, or that its throttle asks for."""
        if self._sends.orders:
            self._refuse(self._sends, entity, "send")
        if not self._throttles:
            return
        for key in (entity.lower(), None):
            throttle = self._throttles.get(key)
            if throttle is not None and not throttle.admits(messages, self.clock()):
                raise Refusal(SERVER_BUSY, f"more than {throttle.per_second:g} messages a second", BUSY_STATUS)

    def before_settlement(self, entity: str) -> None:
        """Raises the Refusal that was ordered for a settlement at `entity`, if one is left."""
        if self._settlements.orders:
            self._refuse(self._settlements, entity, "settlement")

    def drops_acknowledgement(self, entity: str) -> bool:
        """Whether the client shall not hear of what just happened at `entity`."""
        return bool(self._dropped.orders) and self._dropped.take(entity) is not None

    def _refuse(self, orders: _Orders, entity: str, what: str) -> None:
        if order := orders.take(entity):
            raise Refusal(order.condition, f"this {what} was told to fail", status=BUSY_STATUS)

"""Failures on order, for tests of clients: what the broker shall get wrong next."""

from __future__ import annotations

from dataclasses import dataclass, field

from fusebus.servicebus.conditions import SERVER_BUSY, Refusal


@dataclass(slots=True)
class _Order:
    entity: str | None
    left: int
    condition: str

    def takes(self, entity: str) -> bool:
        return self.left > 0 and (self.entity is None or self.entity == entity.lower())


@dataclass(slots=True)
class Faults:
    """Orders are used up in the order they were given."""

    _renewals: list[_Order] = field(default_factory=list)

    def fail_renewals(self, count: int = 1, entity: str | None = None, condition: str = SERVER_BUSY) -> None:
        """The next `count` lock renewals (of one entity, or of any) are refused with `condition`."""
        self._renewals.append(_Order(entity.lower() if entity else None, count, condition))

    def before_renewal(self, entity: str) -> None:
        """Raises the Refusal that was ordered for a renewal at `entity`, if one is left."""
        for order in self._renewals:
            if order.takes(entity):
                order.left -= 1
                raise Refusal(order.condition, "this renewal was told to fail", status=503)

    def clear(self) -> None:
        """Forget all orders."""
        self._renewals.clear()

"""What `$management` does for the rules of a subscription."""

from __future__ import annotations

from collections.abc import Callable

from fusebus.servicebus.engine import Subscription
from fusebus.servicebus.engine.errors import InvalidArgument, NotAllowed
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.requests import NOTHING, Body, Response, item, ok
from fusebus.servicebus.wire_rules import described, rule_of


class RuleOperations:
    """Operations by their names without the vendor's prefix."""

    def __init__(self, gateway: Gateway, path: str) -> None:
        self._engine = gateway.engine
        self._path = path
        self.operations: dict[str, Callable[[Body], Response]] = {
            "add-rule": self._add,
            "remove-rule": self._remove,
            "enumerate-rules": self._list,
        }

    def _subscription(self) -> Subscription:
        entity = self._engine.resolve(self._path)
        if not isinstance(entity, Subscription):
            raise NotAllowed(f"{self._path}: only a subscription has rules")
        return entity

    def _add(self, body: Body) -> Response:
        owner = self._subscription()
        rule = rule_of(item(body, "rule-name", str), item(body, "rule-description", dict))
        self._engine.namespace.create_rule(owner.topic.path, owner.name, rule)
        return ok({})

    def _remove(self, body: Body) -> Response:
        owner = self._subscription()
        self._engine.namespace.delete_rule(owner.topic.path, owner.name, item(body, "rule-name", str))
        return ok({})

    def _list(self, body: Body) -> Response:
        owner = self._subscription()
        skip, top = item(body, "skip", int), item(body, "top", int)
        if skip < 0 or top < 0:
            raise InvalidArgument("skip and top must not be negative")
        found = self._engine.namespace.rules(owner.topic.path, owner.name)[skip : skip + top]
        return ok({"rules": [{"rule-description": described(rule)} for rule in found]}, 200 if found else NOTHING)

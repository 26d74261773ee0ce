"""Every key of one namespace: its root key, keys for the whole of it, and those of single entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusebus.servicebus.engine import AuthorizationRule, EntityNotFound, Namespace, Queue, Topic
from fusebus.servicebus.engine.checks import MAX_ENTITY_NAME
from fusebus.servicebus.engine.rights import ALL_RIGHTS


@dataclass(slots=True)
class Keyring:
    """`key_name` and `key` open everything; `rules` hold for the whole namespace."""

    namespace: Namespace
    key_name: str
    key: str
    rules: Sequence[AuthorizationRule] = ()

    def find(self, name: str | None, path: str) -> Iterator[AuthorizationRule]:
        """The rules of that name (None: the root's) that hold for `path`: its own, its parents', the namespace's."""
        if name in (None, self.key_name):
            yield AuthorizationRule(self.key_name, ALL_RIGHTS, self.key, "")
        yield from (rule for rule in (*self.rules, *self._entity_rules(path)) if rule.name == name)

    def _entity_rules(self, path: str) -> Iterator[AuthorizationRule]:
        steps = path[: MAX_ENTITY_NAME + 1].split("/")  # what is longer is below an entity, or nothing
        for length in range(1, len(steps) + 1):
            try:
                entity = self.namespace.find("/".join(steps[:length]))
            except EntityNotFound:
                continue
            if isinstance(entity, Queue | Topic):
                yield from entity.settings.authorization_rules

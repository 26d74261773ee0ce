"""Entities that delete themselves when nobody has used them for a while."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from fusebus.servicebus.engine.messages import MessageState
from fusebus.servicebus.engine.timers import Timer

if TYPE_CHECKING:
    from fusebus.servicebus.engine.core import Core
    from fusebus.servicebus.engine.mailbox import Mailbox
    from fusebus.servicebus.engine.queues import Queue
    from fusebus.servicebus.engine.subscription import Subscription
    from fusebus.servicebus.engine.topic import Topic


class IdleWatch:
    """One entity's alarm. It looks only when the time could have come, so use itself costs nothing."""

    __slots__ = ("_core", "_delete", "_entity", "_timer")

    def __init__(self, core: "Core", entity: "Queue | Topic | Subscription", delete: Callable[[], None]) -> None:
        self._core = core
        self._entity = entity
        self._delete = delete
        self._timer: Timer | None = None

    def start(self) -> None:
        """Anew, with the entity's present settings."""
        self.stop()
        idle = self._entity.settings.auto_delete_on_idle_seconds
        if idle < math.inf:
            self._timer = self._core.timers.add(self._core.now + idle, self._look, None)

    def stop(self) -> None:
        self._core.timers.cancel(self._timer)
        self._timer = None

    def _look(self, _: object) -> None:
        now, parts = self._core.now, self._entity.watched()
        due = self._entity.settings.auto_delete_on_idle_seconds + max(
            max(part.accessed_at, part.updated_at, part.mailbox.left_at) for part in parts
        )
        if any(_is_in_use(part.mailbox) for part in parts):
            due = now + self._entity.settings.auto_delete_on_idle_seconds
        if due > now:
            self._timer = self._core.timers.add(due, self._look, None)
        else:
            self._timer = None
            self._delete()


def _is_in_use(mailbox: "Mailbox") -> bool:
    """However quiet it is. To forward is to receive, as the service counts it."""
    return mailbox.is_used or mailbox.forward is not None or mailbox.count_by_state[MessageState.SCHEDULED] > 0

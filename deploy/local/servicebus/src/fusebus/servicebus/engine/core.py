"""What all parts of one engine share: the instant, the timers, the tokens, the ports and the mailboxes with work."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from fusebus.servicebus.engine.actions import Changes, apply_changes
from fusebus.servicebus.engine.messages import Message
from fusebus.servicebus.engine.meters import Meter
from fusebus.servicebus.engine.timers import TimerQueue

if TYPE_CHECKING:
    from fusebus.servicebus.engine.entities import Entity
    from fusebus.servicebus.engine.journal import Journal
    from fusebus.servicebus.engine.mailbox import Mailbox


class Core:
    """`now` stands still during one call of the engine, so that a call is one instant."""

    find: Callable[[str], "Entity"]
    """The entity of a path, for forwarding; set by the namespace."""

    def __init__(self, clock: Callable[[], float], new_token: Callable[[], UUID]) -> None:
        self.now = clock()
        self.timers = TimerQueue()
        self.new_token = new_token
        self.rewrite: Callable[[Message, Changes], Message] = apply_changes
        """Makes the message that a rule's action wants; the front's also changes the encoded one."""
        self.meter = Meter()
        """Of all entities together."""
        self.journal: Journal | None = None
        self._clock = clock
        self._touched: deque[Mailbox] = deque()
        self._pumping = False

    def set_time(self) -> None:
        """Look at the clock without doing what is due."""
        self.now = self._clock()

    def begin(self) -> None:
        """Bring the engine to the present instant."""
        self.now = now = self._clock()
        if (heap := self.timers.heap) and heap[0][0] <= now:
            self.timers.run_due(now)
        if self._touched:
            self.pump()

    def touch(self, mailbox: "Mailbox") -> None:
        """The mailbox may have something to deliver."""
        if not mailbox.touched:
            mailbox.touched = True
            self._touched.append(mailbox)

    def pump(self) -> None:
        """Deliver until nothing more can be; a callback that calls back into the engine only adds to the work."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._touched:
                mailbox = self._touched.popleft()
                mailbox.touched = False
                mailbox.dispatch()
        finally:
            self._pumping = False

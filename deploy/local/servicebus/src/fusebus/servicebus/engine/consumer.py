"""One receiver's claim on an entity's messages: its credit and its callbacks."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.messages import Delivery, ReceiveMode

if TYPE_CHECKING:
    from fusebus.servicebus.engine.core import Core
    from fusebus.servicebus.engine.mailbox import Mailbox


class Consumer:
    """Made by `Engine.attach_consumer`; `credit` is the number of deliveries that it may still get."""

    __slots__ = ("_core", "_mailbox", "attached", "credit", "in_line", "mode", "on_closed", "on_delivery")

    def __init__(
        self,
        core: "Core",
        mailbox: "Mailbox",
        mode: ReceiveMode,
        on_delivery: Callable[[Delivery], None],
        on_closed: Callable[[EngineError], None] | None,
    ) -> None:
        self.mode = mode
        self.on_delivery = on_delivery
        self.on_closed = on_closed
        self.credit = 0
        self.attached = True
        self.in_line = False
        """Whether the mailbox has it among those that wait for a message."""
        self._core = core
        self._mailbox = mailbox

    def set_credit(self, credit: int) -> None:
        """Replace the credit (an AMQP flow's link-credit); ready messages are delivered before this returns."""
        self.credit = max(0, credit) if self.attached else 0
        self._mailbox.wait(self)
        self._core.begin()  # last: what is due now is delivered out of the new credit, not added to it

    def add_credit(self, credit: int) -> None:
        """Add to the credit; ready messages are delivered before this returns."""
        self.set_credit(self.credit + credit)

    def detach(self) -> None:
        """No more deliveries; locks that it holds stay until settled or expired. Repeating it is harmless."""
        self.credit = 0
        self.attached = False
        self._mailbox.leave(self)

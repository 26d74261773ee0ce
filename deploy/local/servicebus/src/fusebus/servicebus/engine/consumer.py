"""One receiver's claim on an entity's messages: its credit and its callbacks."""
from collections.abc import Callable

from fusebus.servicebus.engine.messages import Delivery, ReceiveMode


class Consumer:
    """Made by `Engine.attach_consumer`; credit is the number of deliveries that it may still get."""

    mode: ReceiveMode
    credit: int
    on_delivery: Callable[[Delivery], None]

    def set_credit(self, credit: int) -> None:
        """Replace the credit (an AMQP flow's link-credit); ready messages are delivered before this returns."""

    def add_credit(self, credit: int) -> None:
        """Add to the credit; ready messages are delivered before this returns."""

    def detach(self) -> None:
        """No more deliveries; locks that it holds stay until settled or expired. Repeating it is harmless."""

"""The link that messages come over: receive and settle, one at a time, with the SDK's errors in our words."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Literal

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    ServiceBusServerBusyError,
    SessionLockLostError,
)

from fusebus.bus.connection import Connection, close_quietly
from fusebus.bus.errors import Busy, LinkBroken, LockLost
from fusebus.bus.received import Received, received
from fusebus.bus.settings import BusSettings
from fusebus.bus.settlement import Complete, DeadLetter, GiveBack, Settlement

EARLY_SHARE = 0.5  # a receive that comes back empty before half of its wait came back because its link is gone

log = logging.getLogger(__name__)


class ReceiveLink:
    """One receiver of one subscription.

    Only the worker's loop may call it: the SDK is not coroutine-safe, and a settle that meets a receive waits for that
    receive's read. The loop alternates instead: receive a little, then settle all that is finished.
    """

    reopens = True
    """Whether `open` may be tried again when the link broke."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        subscription: str,
        settings: BusSettings,
        sub_queue: Literal["deadletter"] | None = None,
    ) -> None:
        self._connection = connection
        self._sub_queue = sub_queue
        self._topic = topic
        self._subscription = subscription
        self._settings = settings
        self._client: ServiceBusClient | None = None
        self._receiver: ServiceBusReceiver | None = None

    @property
    def is_open(self) -> bool:
        """Whether a receive may be tried."""
        return self._receiver is not None

    @property
    def clean_up_seconds(self) -> float:
        """Longer than it takes to let go of receiver and client."""
        return 2 * self._settings.close_seconds + 1

    async def open(self) -> None:
        """Connect and attach, with a new client. Raises LinkBroken."""
        await self.close()
        client = self._connection.client()
        receiver = self._connection.receiver(client, self._topic, self._subscription, self._sub_queue)
        await self._attach(client, receiver, self._settings.open_seconds)

    async def _attach(self, client: ServiceBusClient, receiver: ServiceBusReceiver, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await receiver.__aenter__()
        except BaseException as error:
            await close_quietly(receiver, self._settings.close_seconds)
            await close_quietly(client, self._settings.close_seconds)
            if not isinstance(error, Exception):
                raise  # cancelled
            raise LinkBroken(f"opening {self._topic}/{self._subscription}: {error!r}") from error
        self._client, self._receiver = client, receiver

    async def receive(self, count: int, seconds: float) -> list[Received]:
        """At most `count` messages; an empty list where none came within `seconds`. Raises LinkBroken.

        Never cancelled by us: messages that the SDK has already taken from the socket would stay locked.
        """
        receiver = self._receiver
        if receiver is None:
            raise LinkBroken("the link is closed")
        started = time.monotonic()
        try:
            found = await receiver.receive_messages(max_message_count=count, max_wait_time=seconds)
        except ServiceBusServerBusyError as error:
            raise Busy(f"receiving: {error}") from error
        except Exception as error:
            raise LinkBroken(f"receiving: {error}") from error
        if not found and time.monotonic() - started < seconds * EARLY_SHARE:
            raise LinkBroken("receiving: the link ended without an error")
        return [self._received(message) for message in found]

    async def settle(self, message: Received, settlement: Settlement) -> None:
        """Settle and wait for the broker's confirmation. Raises LockLost or LinkBroken.

        Works for a message of an earlier link too: the SDK then settles by lock token over the management link.
        """
        receiver = self._receiver
        if receiver is None:
            raise LinkBroken("the link is closed")
        try:
            match settlement:
                case Complete():
                    await receiver.complete_message(message.raw)
                case DeadLetter(reason=reason, description=description):
                    await receiver.dead_letter_message(message.raw, reason=reason, error_description=description)
                case GiveBack():
                    await receiver.abandon_message(message.raw)
        except (MessageLockLostError, MessageNotFoundError, SessionLockLostError) as error:
            raise LockLost(str(error)) from error
        except ServiceBusServerBusyError as error:
            raise Busy(f"settling: {error}") from error
        except Exception as error:
            raise LinkBroken(f"settling: {error}") from error

    async def look_after(self) -> None:
        """Called by the loop each time it comes round, for what a link has to do besides. Raises LinkBroken."""

    def _received(self, message: ServiceBusReceivedMessage) -> Received:
        return received(message)

    async def close(self) -> None:
        """Give back what is buffered and close; `open` may follow."""
        receiver, client = self._receiver, self._client
        self._receiver = self._client = None
        await close_quietly(receiver, self._settings.close_seconds)
        await close_quietly(client, self._settings.close_seconds)

"""The link to one session of a subscription."""

from __future__ import annotations

import asyncio
from datetime import datetime

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.exceptions import OperationTimeoutError, ServiceBusServerBusyError, SessionLockLostError

from fusebus.bus.connection import Connection
from fusebus.bus.errors import Busy, LinkBroken, LockLost
from fusebus.bus.link import ReceiveLink
from fusebus.bus.received import Received, received
from fusebus.bus.settings import BusSettings


class SessionLink(ReceiveLink):
    """A receiver of one session, whichever has messages and no other reader.

    It opens once: what was received of a session can't be settled over the link of another. All its messages have the
    session's lock, and only this link can renew it: the loop does when it comes round, once for all that ask.
    """

    reopens = False

    def __init__(
        self, connection: Connection, topic: str, subscription: str, settings: BusSettings, renew_seconds: float
    ) -> None:
        super().__init__(connection, topic, subscription, settings)
        self._renew_seconds = renew_seconds
        self._asked: asyncio.Future[datetime] | None = None

    async def accept(self, seconds: float) -> bool:
        """Wait so long for a session that has messages; whether one came. Raises LinkBroken."""
        most = seconds + self._settings.open_seconds
        client = self._connection.client(most + self._settings.open_seconds)  # so that its own limit is never met first
        receiver = self._connection.session_receiver(client, self._topic, self._subscription, seconds)
        try:
            await self._attach(client, receiver, most)
        except LinkBroken as error:
            if isinstance(error.__cause__, OperationTimeoutError):  # the broker's word
                return False
            raise
        return True

    async def open(self) -> None:
        """Never again. Raises LinkBroken."""
        raise LinkBroken("the session is over")

    async def renew(self, message: ServiceBusReceivedMessage) -> datetime:
        """The new end of the session's lock, once the loop has come round. Raises LockLost or LinkBroken."""
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._asked)

    async def look_after(self) -> None:
        """Renew the lock if any message's keeper asked. Raises LinkBroken."""
        asked, self._asked = self._asked, None
        if asked is None:
            return
        try:
            asked.set_result(await self._renewed())
        except (LockLost, LinkBroken) as error:
            asked.set_exception(error)
            asked.exception()  # looked at, or asyncio would complain where nobody waits any more
            if not isinstance(error, Busy):  # else the keepers ask again
                raise LinkBroken(f"the session is lost: {error}") from error

    async def _renewed(self) -> datetime:
        if self._receiver is None:
            raise LinkBroken("the link is closed")
        try:
            async with asyncio.timeout(self._renew_seconds):
                return await self._receiver.session.renew_lock()
        except SessionLockLostError as error:
            raise LockLost(str(error)) from error
        except ServiceBusServerBusyError as error:
            raise Busy(f"renewal: {error}") from error
        except Exception as error:
            raise LinkBroken(f"renewal: {error!r}") from error

    async def close(self) -> None:
        """Let the session go, with what of it is not settled."""
        if self._asked is not None:
            self._asked.cancel()
        await super().close()

    def _received(self, message: ServiceBusReceivedMessage) -> Received:
        locked_until = None if self._receiver is None else self._receiver.session.locked_until_utc
        return received(message, locked_until)

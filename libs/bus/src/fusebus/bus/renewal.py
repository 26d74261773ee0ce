"""Keeps locks alive: when to renew, what to do when it fails, and the link that it goes over.

The SDK's own renewer gives up for good after one failure and, at its limit, without telling anybody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import MessageLockLostError, MessageNotFoundError, ServiceBusServerBusyError

from fusebus.bus.backoff import backoff
from fusebus.bus.connection import Closer, Connection
from fusebus.bus.counts import Counts
from fusebus.bus.errors import LinkBroken, LockLost
from fusebus.bus.settings import BusSettings, ConsumerSettings

Clock = Callable[[], float]
"""Seconds since the epoch: lock ends are wall-clock times of the broker."""

TOO_LATE_SECONDS = 0.02  # less than a request takes

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Lock:
    """Our claim on one message."""

    expires: float
    """Seconds since the epoch."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    def left(self, now: float) -> float:
        """Seconds until it ends; 0 once it is lost."""
        return 0.0 if self.lost.is_set() else max(0.0, self.expires - now)


def next_try(left: float, failures: int, settings: ConsumerSettings, jitter: float | None = None) -> float:
    """Seconds to wait before the next renewal of a lock that ends in `left` seconds, after `failures` in a row.

    A renewal that failed is repeated until the lock has really ended, not until somebody loses patience; so no wait
    takes all that is left, until it is too little for another try.
    """
    half_life = left * settings.renew_at
    if failures == 0:
        return half_life
    if left < TOO_LATE_SECONDS:
        return left
    wait = backoff(failures, settings.renew_backoff_seconds, settings.renew_backoff_most_seconds, jitter)
    return min(wait, half_life)


async def keep_lock(
    lock: Lock,
    renew: Callable[[], Awaitable[datetime]],
    settings: ConsumerSettings,
    counts: Counts,
    *,
    clock: Clock = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Renew until cancelled; returns once the lock is lost, with `lock.lost` set."""
    failures = 0
    while (left := lock.left(clock())) > 0:
        await sleep(next_try(left, failures, settings))
        if (left := lock.left(clock())) <= 0:
            break
        try:
            async with asyncio.timeout(min(left, settings.renew_seconds)):
                lock.expires = (await renew()).timestamp()
        except LockLost:
            break
        except (LinkBroken, TimeoutError) as error:
            failures += 1
            counts.add("renewal_failed")
            log.warning("lock renewal failed %d times, %.1f s left: %r", failures, lock.left(clock()), error)
        else:
            failures = 0
            counts.add("renewed")
    lock.lost.set()


class Renewals(Protocol):
    """What renews the locks of one subscription's messages."""

    async def renew(self, message: ServiceBusReceivedMessage) -> datetime:
        """Renew and return the new end. Raises LockLost where the broker says so, else LinkBroken."""

    async def close(self) -> None:
        """Close what it needed for that."""


class RenewalLink:
    """A second receiver on the subscription that never receives: renewals go over its management link.

    Reading the SDK (7.15) shows why: a receiver has one socket, and receive, settle and management requests all read
    from it, whoever comes first. A renewal over the receiver that also receives would wait for that read, for a
    settlement that hangs (60 s), for the back-off of a broken link or for its rebuild: in just those moments locks
    would be lost. A lock belongs to the subscription, not to a link, so any management link of it can renew. The price
    is one more connection, opened at the first renewal: consumers of short work never open it.
    """

    def __init__(
        self, connection: Connection, topic: str, subscription: str, settings: BusSettings, renew_seconds: float
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._subscription = subscription
        self._renew_seconds = renew_seconds
        self._guard = asyncio.Lock()  # the SDK's objects are not coroutine-safe
        self._client: ServiceBusClient | None = None
        self._receiver: ServiceBusReceiver | None = None
        self._closer = Closer(settings.close_seconds)
        self._requests: set[asyncio.Task[datetime]] = set()

    async def renew(self, message: ServiceBusReceivedMessage) -> datetime:
        """Renew and return the new end. Raises LockLost where the broker says so, else LinkBroken.

        A caller that is cancelled (its message is settled) does not cancel the request: others need the link it is on.
        """
        request = asyncio.create_task(self._request(message))
        self._requests.add(request)
        request.add_done_callback(self._forget)
        return await asyncio.shield(request)

    async def close(self) -> None:
        """Close the link; a renewal would open it again."""
        requests = list(self._requests)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        self._drop()
        await self._closer.finish()

    async def _request(self, message: ServiceBusReceivedMessage) -> datetime:
        async with self._guard:
            usable = False
            try:
                async with asyncio.timeout(self._renew_seconds):
                    expires = await (await self._opened()).renew_message_lock(message)
                usable = True
            except (MessageLockLostError, MessageNotFoundError) as error:
                usable = True
                raise LockLost(str(error)) from error
            except ServiceBusServerBusyError as error:
                usable = True  # an answer: the link works
                raise LinkBroken(f"renewal: {error}") from error
            except Exception as error:
                raise LinkBroken(f"renewal: {error!r}") from error
            finally:
                if not usable:  # also when cancelled: an answer that comes late must not meet the next request
                    self._drop()
            return expires

    def _forget(self, request: asyncio.Task[datetime]) -> None:
        self._requests.discard(request)
        if not request.cancelled():
            request.exception()  # looked at, or asyncio would complain where the caller is gone

    def _drop(self) -> None:
        """A new link for the next renewal at once: a lock has no time to wait until the old one is closed."""
        if self._receiver is not None:
            self._closer.close_later(self._receiver, self._client)
        self._receiver = self._client = None

    async def _opened(self) -> ServiceBusReceiver:
        if self._receiver is None:
            self._client = self._connection.client()
            self._receiver = self._connection.receiver(self._client, self._topic, self._subscription)
            await self._receiver.__aenter__()
        return self._receiver

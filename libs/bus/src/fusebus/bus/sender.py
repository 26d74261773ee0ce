"""One topic's link for all that send to it: what waits while a batch is under way goes together in the next."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusServerBusyError,
)

from fusebus.bus.backoff import backoff
from fusebus.bus.connection import Closer, Connection
from fusebus.bus.errors import PublishFailed
from fusebus.bus.settings import BusSettings

log = logging.getLogger(__name__)

Fence = Callable[[], None]
"""Called before each send; raises where it must not happen any more."""


@dataclass(eq=False)
class _Load:
    """What one caller has still to send."""

    messages: Sequence[ServiceBusMessage]
    fence: Fence
    failures: int = 0
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return not self.messages or self.error is not None


class TopicSender:
    """The SDK's sender is not coroutine-safe: one send at a time. An idle one is detached and opens itself again.

    A send is a round trip, so each takes along what others wait to send. After a failure each caller's messages go by
    themselves, and only those can fail: what a broker does not take of one is no reason to fail the others.
    """

    def __init__(self, connection: Connection, topic: str, settings: BusSettings) -> None:
        self._connection = connection
        self._topic = topic
        self._settings = settings
        self._guard = asyncio.Lock()
        self._loads: list[_Load] = []
        """Not done yet, in the order in which they came."""
        self._client: ServiceBusClient | None = None
        self._sender: ServiceBusSender | None = None
        self._closer = Closer(settings.close_seconds)

    async def send(self, messages: Sequence[ServiceBusMessage], fence: Fence) -> None:
        """Send all in order, in as few batches as fit. Raises PublishFailed, and what `fence` raises."""
        load = _Load(messages, fence)
        self._loads.append(load)
        try:
            async with self._guard:
                while not load.is_done:
                    await self._send_once()
        finally:
            if load in self._loads:
                self._loads.remove(load)
        if load.error is not None:
            raise load.error

    async def connect(self) -> None:
        """Open the link if it is not."""
        async with self._guard:
            try:
                async with asyncio.timeout(self._settings.send_seconds):
                    await self._opened()
            except Exception as error:
                log.info("the link to %s could not be opened yet: %r", self._topic, error)
                self._drop()
            except asyncio.CancelledError:
                self._drop()
                raise

    async def close(self) -> None:
        """Close the link; a send would open it again."""
        self._drop()
        await self._closer.finish()

    async def _send_once(self) -> None:
        """One batch of what waits, whoever waits for it."""
        loads = self._fenced(self._loads[:1] if self._loads[0].failures else self._unfailed())
        try:
            async with asyncio.timeout(self._settings.send_seconds):
                await self._send_batch(loads)
        except asyncio.CancelledError:
            self._drop()  # in the middle of a send: the next one takes a new link
            raise
        except Exception as error:
            await self._after_failure(error, loads)
        finally:
            self._loads = [one for one in self._loads if not one.is_done]

    def _unfailed(self) -> list[_Load]:
        """As many as have the messages of a batch together."""
        chosen, count = list[_Load](), 0
        for load in takewhile(lambda one: not one.failures, self._loads):
            if count >= self._settings.batch_messages:
                break
            chosen.append(load)
            count += len(load.messages)
        return chosen

    @staticmethod
    def _fenced(loads: Sequence[_Load]) -> list[_Load]:
        for load in loads:
            try:
                load.fence()
            except Exception as error:
                load.error = error
        return [load for load in loads if load.error is None]

    async def _send_batch(self, loads: Sequence[_Load]) -> None:
        """Send what fits of these. Raises MessageSizeExceededError where the first message by itself is too large."""
        if not loads:
            return
        sender = await self._opened()
        batch = await sender.create_message_batch(max_size_in_bytes=self._settings.batch_bytes)
        taken: Counter[_Load] = Counter()
        waiting = ((load, message) for load in loads for message in load.messages)
        for load, message in islice(waiting, self._settings.batch_messages):
            try:
                batch.add_message(message)
            except MessageSizeExceededError:
                if not taken:
                    raise
                break
            taken[load] += 1
        await sender.send_messages(batch)
        for load, count in taken.items():
            load.messages = load.messages[count:]
            load.failures = 0

    async def _after_failure(self, error: Exception, loads: Sequence[_Load]) -> None:
        is_alone = len(loads) == 1
        is_too_large = isinstance(error, MessageSizeExceededError) and is_alone
        is_hopeless = is_too_large or isinstance(error, MessagingEntityNotFoundError)
        if not isinstance(error, ServiceBusServerBusyError):
            # Whatever it was, the link's state is unknown (a send may even hang in it): take a new one.
            self._drop()
        for load in loads:
            load.failures += 1
            if is_hopeless or (is_alone and load.failures >= self._settings.send_attempts):
                load.error = PublishFailed(f"topic {self._topic}, {load.failures} tries: {error!r}")
                load.error.__cause__ = error
        if left := [load.failures for load in loads if not load.is_done]:
            wait = backoff(min(left), self._settings.send_backoff_seconds, self._settings.send_backoff_most_seconds)
            log.info("sending to %s failed %d times, again in %.1f s: %r", self._topic, min(left), wait, error)
            await asyncio.sleep(wait)

    def _drop(self) -> None:
        if self._sender is not None:
            self._closer.close_later(self._sender, self._client)
        self._sender = self._client = None

    async def _opened(self) -> ServiceBusSender:
        if self._sender is None:
            self._client = self._connection.client()
            self._sender = self._connection.sender(self._client, self._topic)
            await self._sender.__aenter__()
        return self._sender

"""One test for both of the Python SDK's clients, the one with threads and the one with asyncio."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.servicebus import AutoLockRenewer, ServiceBusClient, aio
from azure.servicebus.aio.management import ServiceBusAdministrationClient as AsyncAdministrationClient
from azure.servicebus.management import ServiceBusAdministrationClient

CLIENTS: dict[str, Any] = {"threads": ServiceBusClient, "asyncio": aio.ServiceBusClient}
ADMINISTRATIONS: dict[str, Any] = {"threads": ServiceBusAdministrationClient, "asyncio": AsyncAdministrationClient}
RENEWERS: dict[str, Any] = {"threads": AutoLockRenewer, "asyncio": aio.AutoLockRenewer}
WAIT_SECONDS = 20.0  # as long as a message that is there may take to come
_closing: set[asyncio.Task[None]] = set()


async def done(answer: Any) -> Any:
    """What a call answered, waited for where it is a coroutine."""
    return await answer if inspect.isawaitable(answer) else answer


async def every(found: Any) -> list[Any]:
    """All of an iterable of either kind."""
    return list(found) if isinstance(found, Iterable) else [item async for item in found]


@asynccontextmanager
async def opened(*handlers: Any) -> AsyncIterator[Any]:
    """Enters senders, receivers or clients at the same time; closes them in the background, for that takes a second."""
    await asyncio.gather(*(_enter(handler) for handler in handlers))
    try:
        yield handlers[0] if len(handlers) == 1 else handlers
    finally:
        _closing.update(asyncio.create_task(_close(handler)) for handler in handlers)


async def all_closed() -> None:
    """Waits for what `opened` closes in the background of this loop; what another test left in its own has ended."""
    here = asyncio.get_running_loop()
    while own := [task for task in _closing if task.get_loop() is here]:
        await asyncio.gather(*own, return_exceptions=True)
        _closing.difference_update(own)


async def _enter(handler: Any) -> None:
    if hasattr(handler, "__aenter__"):
        await handler.__aenter__()
    else:
        await asyncio.to_thread(handler.__enter__)


async def _close(handler: Any) -> None:
    if inspect.iscoroutinefunction(handler.close):
        await handler.close()
    else:
        await asyncio.to_thread(handler.close)


def at(seconds: float) -> datetime:
    """That long from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def receive(receiver: Any, count: int = 1) -> list[Any]:
    """Exactly `count` messages; an AssertionError if they do not come."""
    found: list[Any] = []
    end = time.monotonic() + WAIT_SECONDS
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} came"
        found += await done(receiver.receive_messages(count - len(found), max_wait_time=1))
    return found


def texts(messages: list[Any]) -> list[str]:
    """Their bodies."""
    return [str(message) for message in messages]

"""Work that a stop breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

CANCEL_AGAIN_SECONDS = 2.0
"""How long work that was cancelled may clean up. Some of the SDKs lose a cancel: a `wait_for` that ends just then."""

T = TypeVar("T")


async def until_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """What the work gives or raises; None where the stop came first: then it is cancelled, and has ended."""
    doing, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        while not doing.done():
            doing.cancel()
            await asyncio.wait({doing}, timeout=CANCEL_AGAIN_SECONDS)
    return None if doing.cancelled() else doing.result()

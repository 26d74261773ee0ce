"""Work that a stop breaks off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

CLEAN_UP_SECONDS = 15.0
"""How long work that was cancelled may clean up, if it doesn't say otherwise."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


async def until_stopped(
    work: Coroutine[Any, Any, T], stop: asyncio.Event, clean_up_seconds: float = CLEAN_UP_SECONDS
) -> T | None:
    """What the work gives or raises; None where the stop came first.

    Then the work is cancelled and its end waited for, and an error in that end is logged, not raised. Work that hasn't
    ended after `clean_up_seconds` is cancelled again: an SDK loses a cancel where its `wait_for` ends just then.
    """
    doing, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        broken_off = not doing.done()
    finally:
        stopped.cancel()
        while not doing.done():
            doing.cancel()
            await asyncio.wait({doing}, timeout=clean_up_seconds)
    if doing.cancelled():
        return None
    if broken_off and (error := doing.exception()) is not None:
        _log.warning("what the stop broke off ended in an error: %r", error)
        return None
    return doing.result()

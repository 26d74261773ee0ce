"""Whether a consumer makes progress: a port that answers proves nothing, a message that is received does."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum, auto

LAG_SAMPLE_SECONDS = 0.5

log = logging.getLogger(__name__)


class Finding(Enum):
    """What a look at the depth says about a consumer that receives nothing."""

    EMPTY = auto()
    """Nothing waits: all is well."""
    UNKNOWN = auto()
    """The depth can't be read: hold still."""
    REBUILD = auto()
    """Messages wait and none comes: take a new client."""
    DEAD = auto()
    """A new client did not help."""


def judge(waiting: int | None, rebuilt: bool) -> Finding:
    """What to make of `waiting` messages that nobody here holds, after a long time without receiving any.

    The count includes messages that other consumers have locked, so a subscription where others hold the last few
    messages for two whole `stall_seconds` looks like a dead link. That costs a restart of an idle process, no message.
    """
    if waiting is None:
        return Finding.UNKNOWN
    if waiting <= 0:
        return Finding.EMPTY
    return Finding.DEAD if rebuilt else Finding.REBUILD


async def watch_lag(warning_seconds: float) -> None:
    """Report an event loop that something blocks (then no lock is renewed); runs until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SAMPLE_SECONDS
        await asyncio.sleep(LAG_SAMPLE_SECONDS)
        if (late := loop.time() - due) > warning_seconds:
            log.warning("the event loop was blocked for %.1f s: move that work into a thread", late)

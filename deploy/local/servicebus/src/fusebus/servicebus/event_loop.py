"""Which event loop a broker that owns its process or thread runs on."""

from __future__ import annotations

import asyncio
from enum import Enum


class LoopKind(Enum):
    """The values of `--event-loop`."""

    AUTO = "auto"
    """uvloop where it is installed (it has no Windows version), else asyncio's own."""
    UVLOOP = "uvloop"
    ASYNCIO = "asyncio"


def new_loop(kind: LoopKind = LoopKind.AUTO) -> asyncio.AbstractEventLoop:
    """A loop of that kind; raises ModuleNotFoundError for UVLOOP where that is not installed."""
    if kind is LoopKind.ASYNCIO:
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ModuleNotFoundError:
        if kind is LoopKind.UVLOOP:
            raise
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()

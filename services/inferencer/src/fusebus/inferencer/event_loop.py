"""The event loop that a worker runs on."""

from __future__ import annotations

import asyncio
import sys


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's: what lies between the stages' work takes a fifth less CPU on it. It has no Windows version."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()

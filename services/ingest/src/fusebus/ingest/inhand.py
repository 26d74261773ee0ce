"""Which uploads this process deals with: one that comes twice at a time is examined once, and searches leave it out."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

REMEMBERED = 10_000
"""Uploads, about 1.5 MB of memory."""


class InHand:
    """Uploads from when their event is taken up until so many others were."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Each is kept by those who hold it or wait for it."""
        self._lately: OrderedDict[str, None] = OrderedDict()
        self._remembered = remembered

    def __contains__(self, upload_id: object) -> bool:
        """Whether it is being dealt with, or was lately: entered, refused, or put off until another message of it."""
        return upload_id in self._lately

    @asynccontextmanager
    async def alone(self, upload_id: str) -> AsyncIterator[None]:
        """The upload is in hand; another one of the same waits until the end of the block."""
        self._lately[upload_id] = None
        self._lately.move_to_end(upload_id)
        if len(self._lately) > self._remembered:
            self._lately.popitem(last=False)
        lock = self._locks.setdefault(upload_id, asyncio.Lock())
        async with lock:
            yield

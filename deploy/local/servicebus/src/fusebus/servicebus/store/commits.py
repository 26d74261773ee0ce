"""When the store commits: once per turn of the event loop, before any client is told anything."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Final, Protocol

from fusebus.servicebus.store.store import RETRY_SECONDS, Store

BUSY_SECONDS: Final = 0.0003  # commits for different clients closer than this are worth putting together

logger = logging.getLogger(__name__)


class Client(Protocol):
    """A connection whose answers may rest on what could not be written."""

    @property
    def has_output(self) -> bool:
        """Whether answers wait to be sent."""

    def abort(self) -> None:
        """Drop them and cut the connection."""


class Front(Protocol):
    """Where the clients are; the Gateway is one."""

    answer_at_once: bool

    @property
    def reading(self) -> Client | None:
        """Whose bytes are being handled."""

    @property
    def clients(self) -> Iterable[Client]:
        """All that are connected."""


class GroupCommit:
    """Commits before answers go out. If that fails, clients with answers waiting are cut off rather than misled.

    While several clients are busy at the same time, their answers wait for the end of the loop's turn, and for one
    commit; a single one gets its answer at once.
    """

    def __init__(self, store: Store, front: Front) -> None:
        self._store = store
        self._front = front
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._committed_at = 0.0
        self._last_reader = 0
        self._shared = 0  # answers that needed no commit of their own since the last
        store.front, store.on_pending = front, self._plan
        self._watch()

    def commit(self) -> bool:
        """What was said to the engine so far is durable when this returns True."""
        committed = self._store.commit()
        if not committed or self._store.refusal is not None:
            self._trouble(committed)
        return committed

    def _trouble(self, committed: bool) -> None:
        if not committed:
            cut = [client for client in list(self._front.clients) if client.has_output]
            for client in cut:
                client.abort()
            logger.error("%d connections were cut: what they wait for could not be written", len(cut))
        self._watch()

    def before_output(self) -> None:
        """See Gateway.before_output."""
        store = self._store
        if not store.pending:
            self._shared += 1
            return
        now, reader = time.monotonic(), self._front.reading  # uvloop's own clock counts milliseconds
        if reader is None:  # at the end of a turn
            busy = self._shared > 0
        else:
            busy = id(reader) != self._last_reader and now - self._committed_at < BUSY_SECONDS
            self._last_reader = id(reader)
        self._front.answer_at_once = not busy
        self._committed_at, self._shared = now, 0
        committed = store.commit()
        if not committed or store.refusal is not None:
            self._trouble(committed)

    def close(self) -> None:
        """Commits what is left; nothing happens by itself any more."""
        self._store.on_pending = lambda: None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._store.close()

    def _plan(self) -> None:
        """Something is to be committed though perhaps nobody waits for it."""
        self._loop.call_soon(self.commit)

    def _watch(self) -> None:
        if self._retry is None and self._store.refusal is not None:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._store.retry()
        self._watch()

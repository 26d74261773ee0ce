"""When the store commits: once per turn of the event loop, before any client is told anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from fusebus.servicebus.store.store import RETRY_SECONDS, Store

logger = logging.getLogger(__name__)


class Client(Protocol):
    """A connection whose answers may rest on what could not be written."""

    @property
    def has_output(self) -> bool:
        """Whether answers wait to be sent."""

    def abort(self) -> None:
        """Drop them and cut the connection."""


class GroupCommit:
    """Commits before answers go out. If that fails, clients with answers waiting are cut off rather than misled."""

    def __init__(self, store: Store, clients: Callable[[], Iterable[Client]]) -> None:
        self._store = store
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        store.on_pending = self._plan
        self._watch()

    def commit(self) -> bool:
        """What was said to the engine so far is durable when this returns True."""
        committed = self._store.commit()
        if not committed:
            cut = [client for client in self._clients() if client.has_output]
            for client in cut:
                client.abort()
            logger.error("%d connections were cut: what they wait for could not be written", len(cut))
        if self._store.refusal is not None:
            self._watch()
        return committed

    def before_output(self) -> None:
        """See Gateway.before_output."""
        if self._store.pending:
            self.commit()

    def close(self) -> None:
        """Commits what is left; nothing happens by itself any more."""
        self._store.on_pending = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._store.close()

    def _plan(self) -> None:
        self._loop.call_soon(self.before_output)

    def _watch(self) -> None:
        if self._retry is None and self._store.refusal is not None:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._store.retry()
        self._watch()

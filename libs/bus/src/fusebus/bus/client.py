"""The bus as a service sees it: publish, consume, look at depths and dead letters."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from fusebus.bus.administration import Depth
from fusebus.bus.context import Handler
from fusebus.bus.dead_letters import DeadLetter
from fusebus.bus.publisher import Publisher
from fusebus.bus.settings import BusSettings, ConsumerSettings


class Bus:
    """One process's connection to the namespace; nothing connects before it is used."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def publisher(self) -> Publisher:
        """The process's publisher."""
        raise NotImplementedError

    async def consume(
        self,
        topic: str,
        subscription: str,
        handler: Handler,
        *,
        stop: asyncio.Event,
        slots: int | None = None,
        idle_exit: float | None = None,
        settings: ConsumerSettings | None = None,
    ) -> None:
        """Handle messages until `stop` is set (then drain) or none came for `idle_exit` seconds.

        `slots` and `idle_exit` replace the fields of `settings`. Raises ConsumerDead.
        """
        raise NotImplementedError

    def is_alive(self) -> bool:
        """Whether every consumer's loop still turns."""
        raise NotImplementedError

    async def depth(self, topic: str, subscription: str) -> Depth | None:
        """How much waits; None where it could not be read: unknown is not zero."""
        raise NotImplementedError

    async def peek_dead_letters(self, topic: str, subscription: str, after_sequence: int = 0) -> list[DeadLetter]:
        """The next dead letters after a sequence number, oldest first; empty where there are no more."""
        raise NotImplementedError

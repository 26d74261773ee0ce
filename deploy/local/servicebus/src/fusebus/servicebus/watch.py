"""Watches over one open connection: a client that falls silent, and one that does not read."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from fusebus.servicebus.amqp.performatives import Error

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection

CONNECTION_FORCED = "amqp:connection:forced"
SILENCE_FACTOR = 2  # AMQP 1.0, 2.4.5: announce half of what is granted


class Watch:
    """Ends its connection when a bound is reached."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection = weakref.proxy(connection)  # which has this: both shall go at once
        self._bounds = connection.gateway.bounds
        self._tallies = connection.gateway.tallies
        self._loop = asyncio.get_running_loop()
        self.heard_at = self._loop.time()
        """When something came from the client last, on the loop's clock."""
        self._silence: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._held = False  # nothing is read from the client
        self._held_bytes = 0

    def start(self) -> None:
        """The connection is open."""
        if self._bounds.idle_seconds:
            self._silence = self._loop.call_later(self._patience, self._check_silence)

    def stop(self) -> None:
        """The connection is gone."""
        for timer in (self._silence, self._unread):
            if timer is not None:
                timer.cancel()

    @property
    def _patience(self) -> float:
        return self._bounds.idle_seconds * SILENCE_FACTOR

    def _check_silence(self) -> None:
        left = self.heard_at + self._patience - self._loop.time()
        if left > 0:
            self._silence = self._loop.call_later(left, self._check_silence)
            return
        self._tallies.idle.add()
        text = f"The connection was inactive for more than the allowed {self._patience:g} s."
        self._connection.close(Error(condition=CONNECTION_FORCED, description=text))

    def paused_changed(self, paused: bool) -> None:
        """The client stopped reading, or took up again."""
        if paused and self._unread is None:
            self._unread = self._loop.call_later(self._bounds.unread_seconds, self._give_up)
        elif not paused and self._unread is not None:
            self._unread.cancel()
            self._unread = None
            if self._held:
                self._held = False
                self.heard_at = self._loop.time()
                self._connection.read_on(True)

    def output_grew(self, size: int) -> None:
        """Output is added to what the client has not read, `size` bytes by now."""
        if size > self._bounds.unread_bytes and not self._held:
            self._held = True
            self._connection.read_on(False)

    def hold(self, size: int) -> None:
        """`size` more bytes are kept for the client."""
        before, self._held_bytes = self._held_bytes, self._held_bytes + size
        if before <= self._bounds.held_bytes < self._held_bytes:
            self._tallies.held.add()
            self._connection.abort()

    def _give_up(self) -> None:
        self._tallies.unread.add()
        self._connection.abort()

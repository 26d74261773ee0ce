"""Connections whose handshake is not finished: a bounded number of them, each for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fusebus.servicebus.bounds import ClientBounds, Tallies


@dataclass(slots=True, eq=False)
class Guest:
    """One connection that waits; `turn_out` ends it, and must not call back."""

    turn_out: Callable[[], object]
    until: float  # on the loop's clock


class Lobby:
    """Guests are kept in the order of their coming, so one timer serves all."""

    def __init__(self, bounds: ClientBounds, tallies: Tallies) -> None:
        self._bounds = bounds
        self._tallies = tallies
        self._guests: dict[Guest, None] = {}
        self._by_transport: dict[asyncio.BaseTransport, Guest] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, turn_out: Callable[[], object]) -> Guest:
        """A connection begins; if there are too many, the oldest has to go: an honest one is never long in here."""
        if len(self._guests) >= self._bounds.half_open_connections:
            self._tallies.evicted.add()
            self._turn_out(next(iter(self._guests)))
        loop = asyncio.get_running_loop()
        guest = Guest(turn_out, loop.time() + self._bounds.handshake_seconds)
        self._guests[guest] = None
        if self._timer is None:
            self._timer = loop.call_at(guest.until, self._check)
        return guest

    def leave(self, guest: Guest) -> None:
        """Its handshake is finished, or it is gone; repeating it is harmless."""
        self._guests.pop(guest, None)

    def wait_for_request(self, guest: Guest, transport: asyncio.BaseTransport) -> None:
        """An HTTP connection stays until its first request has arrived."""
        self._by_transport[transport] = guest

    def request_arrived(self, transport: asyncio.BaseTransport | None) -> None:
        """A whole HTTP request came in."""
        guest = self._by_transport.pop(transport, None) if transport is not None else None
        if guest is not None:
            self.leave(guest)

    def close(self) -> None:
        """Turns everybody out."""
        if self._timer is not None:
            self._timer.cancel()
        for guest in list(self._guests):
            self._turn_out(guest)
        self._by_transport.clear()

    def _turn_out(self, guest: Guest) -> None:
        self.leave(guest)
        guest.turn_out()

    def _check(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for guest in list(self._guests):
            if guest.until > loop.time():
                self._timer = loop.call_at(guest.until, self._check)
                break
            self._tallies.late.add()
            self._turn_out(guest)
        self._by_transport = {key: guest for key, guest in self._by_transport.items() if guest in self._guests}

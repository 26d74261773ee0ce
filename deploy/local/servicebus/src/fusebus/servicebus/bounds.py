"""What one client, or many that never get anywhere, may cost the broker; every bound can be set."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fusebus.servicebus.tally import Tally

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientBounds:
    """Times in seconds, sizes in bytes; what exceeds a bound is cut off and logged."""

    handshake_seconds: float = 30.0
    """From being accepted to AMQP's open, or to a first HTTP request; and what a request may take with its body."""
    idle_seconds: float = 240.0
    """Announced as idle time-out; a client that is silent for twice as long is cut off. 0: never."""
    unread_bytes: int = 16 * 1024 * 1024
    """Output that a client does not read; beyond it nothing more is read from that client either."""
    unread_seconds: float = 120.0
    """How long a client may leave its output unread at all."""
    held_bytes: int = 64 * 1024 * 1024
    """Kept for one client: parts of messages it does not finish, answers it gives no credit or window for."""
    connections: int = 20_000
    half_open_connections: int = 1_000
    """Without a finished handshake; the oldest makes room for a new one."""
    unsettled_deliveries: int = 10_000
    """Of one receiver that never settles; it gets no more until it does, or until their locks are lost."""


@dataclass(slots=True)
class Tallies:
    """How often each bound was hit: logged as they happen, at most once a second each."""

    refused: Tally
    evicted: Tally
    late: Tally
    idle: Tally
    unread: Tally
    held: Tally
    unsettled: Tally


def tallies() -> Tallies:
    """New ones, all at zero."""
    return Tallies(
        refused=Tally(logger, "connections refused: too many are open"),
        evicted=Tally(logger, "connections closed: too many are half open"),
        late=Tally(logger, "connections closed: the handshake took too long"),
        idle=Tally(logger, "connections closed: the client was silent for too long"),
        unread=Tally(logger, "connections closed: the client does not read"),
        held=Tally(logger, "connections closed: too much was kept for the client"),
        unsettled=Tally(logger, "receivers held back: too many deliveries are unsettled"),
    )

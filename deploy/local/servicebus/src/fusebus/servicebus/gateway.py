"""What all connections share: the engine, the clock, and who may do what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusebus.servicebus import sas
from fusebus.servicebus.engine.engine import Engine
from fusebus.servicebus.faults import Faults

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection

DEFAULT_MAX_MESSAGE_BYTES = 262_144  # the Standard tier's


@dataclass(slots=True)
class Gateway:
    """Shared by reference; `clock` gives seconds since the Unix epoch, UTC."""

    engine: Engine
    clock: Callable[[], float]
    key_name: str
    key: str
    insecure: bool = False
    container_id: str = "fusebus-servicebus"
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    faults: Faults = field(default_factory=Faults)
    connections: set[Connection] = field(default_factory=set)

    def verify(self, token: str) -> sas.Claim:
        """The claim of a token; raises SasError. Without security every token claims everything for ever."""
        if self.insecure:
            return sas.Claim("", float("inf"))
        return sas.verify(token, self.key_name, self.key, self.clock())

    def authorizes(self, authorization: str | None, path: str) -> bool:
        """Whether an HTTP Authorization header allows the entity at `path`."""
        if self.insecure:
            return True
        try:
            return self.verify(authorization or "").covers(path, self.clock())
        except sas.SasError:
            return False

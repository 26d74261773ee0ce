"""What all connections share: the engine, the clock, and who may do what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusebus.servicebus import sas
from fusebus.servicebus.bounds import ClientBounds, Tallies, tallies
from fusebus.servicebus.engine.engine import Engine
from fusebus.servicebus.engine.rights import AuthorizationRule, Right
from fusebus.servicebus.faults import Faults
from fusebus.servicebus.keyring import Keyring
from fusebus.servicebus.lobby import Lobby
from fusebus.servicebus.tier import Tier

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Gateway:
    """Shared by reference; `clock` gives seconds since the Unix epoch, UTC."""

    engine: Engine
    clock: Callable[[], float]
    key_name: str
    key: str
    rules: Sequence[AuthorizationRule] = ()
    """Keys for the whole namespace besides the root key."""
    insecure: bool = False
    container_id: str = "fusebus-servicebus"
    tier: Tier = Tier.STANDARD
    bounds: ClientBounds = field(default_factory=ClientBounds)
    tallies: Tallies = field(default_factory=tallies)
    lobby: Lobby = field(init=False)
    faults: Faults = field(default_factory=Faults)
    connections: set[Connection] = field(default_factory=set)
    before_output: Callable[[], None] = _nothing
    """Called before a connection hands one turn's output to its socket: what clients are told must be kept by then."""
    answer_at_once: bool = True
    """Whether a connection answers when it has read what there was, rather than at the end of the loop's turn."""
    reading: Connection | None = None
    """Which connection is handling what it has read: `before_output` will be called soon."""

    def __post_init__(self) -> None:
        self.lobby = Lobby(self.bounds, self.tallies)

    @property
    def max_message_bytes(self) -> int:
        """Of one batch, and of one message where the entity has no limit of its own."""
        return self.tier.max_message_bytes

    @property
    def clients(self) -> set[Connection]:
        """All that are connected and have opened."""
        return self.connections

    @property
    def full(self) -> bool:
        """Whether one more connection would be too many."""
        return len(self.connections) + len(self.lobby) >= self.bounds.connections

    def verify(self, token: str) -> sas.Claim:
        """The claim of a token; raises SasError. Without security every token claims everything for ever."""
        if self.insecure:
            return sas.Claim("", float("inf"))
        keyring = Keyring(self.engine.namespace, self.key_name, self.key, self.rules)
        return sas.verify(token, keyring.find, self.clock())

    def log_in(self, name: str, key: str) -> sas.Claim | None:
        """The claim of a key for the whole namespace, given by its name; None if it is not that key."""
        keyring = Keyring(self.engine.namespace, self.key_name, self.key, self.rules)
        for rule in keyring.find(name, ""):
            if sas.is_key(rule, key):
                return sas.Claim("", float("inf"), rule.granted)
        return None

    def authorizes(self, authorization: str | None, path: str, right: Right = Right.MANAGE) -> bool:
        """Whether an HTTP Authorization header gives that right to the entity at `path`; "" is the namespace."""
        if self.insecure:
            return True
        try:
            return self.verify(authorization or "").allows(path, right, self.clock())
        except sas.SasError:
            return False

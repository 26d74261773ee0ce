"""The whole broker in one object: engine, listener, certificate, timers; for the command line and for tests."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from fusebus.servicebus import config
from fusebus.servicebus.amqp.performatives import Error
from fusebus.servicebus.bounds import ClientBounds
from fusebus.servicebus.ca import Authority, ensure_authority, kept_key
from fusebus.servicebus.conditions import DETACH_FORCED
from fusebus.servicebus.connection import Connection
from fusebus.servicebus.engine import Engine
from fusebus.servicebus.faults import Faults
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.http import HttpFront
from fusebus.servicebus.link import Link
from fusebus.servicebus.memory import MemoryReturn
from fusebus.servicebus.receivers import EntityReceiver
from fusebus.servicebus.rewriting import rewrite
from fusebus.servicebus.server import Listener
from fusebus.servicebus.store import DEFAULT_RESERVE_BYTES, GroupCommit, Store, Sync
from fusebus.servicebus.tier import Tier

logger = logging.getLogger(__name__)

KEY_NAME = "RootManageSharedAccessKey"
STOP_SECONDS = 2.0  # what clients get to take the goodbye before their sockets are cut
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How to run a broker.

    `port` 0 takes a free one. `topology` is a file or its contents (see config.py). `key` None makes one, kept in
    `ca_directory`; `ca_directory` None uses a temporary one. `insecure` accepts any token. `faults` opens POST
    /$faults. `tier` sets the largest message. `bounds` limits what a client may cost. `data` is the directory that
    keeps everything over restarts, None for memory only; what is stored there wins over `topology`. `data_sync` says
    which crash that survives, `data_reserve_bytes` what is held free there for a disk that fills up.
    """

    host: str = "127.0.0.1"
    port: int = 0
    admin_port: int | None = None
    topology: Path | Mapping[str, Any] | None = None
    key: str | None = None
    ca_directory: Path | None = None
    insecure: bool = False
    faults: bool = False
    tier: Tier = Tier.STANDARD
    bounds: ClientBounds = field(default_factory=ClientBounds)
    data: Path | None = None
    data_sync: Sync = Sync.PROCESS
    data_reserve_bytes: int = DEFAULT_RESERVE_BYTES


class Broker:
    """`async with Broker(options) as broker:` listens inside, and has ended every connection after."""

    connection_string: str
    """For data clients and, over https on the same port, administration clients (they need `ca_path`)."""
    admin_connection_string: str
    ca_path: Path
    port: int
    admin_port: int | None

    def __init__(self, options: BrokerOptions | None = None, clock: Callable[[], float] = time.time) -> None:
        self.options = options or BrokerOptions()
        self.engine = Engine(clock, max_message_bytes=self.options.tier.max_message_bytes, rewrite=rewrite)
        self.gateway = Gateway(
            engine=self.engine,
            clock=clock,
            key_name=KEY_NAME,
            key="",
            insecure=self.options.insecure,
            tier=self.options.tier,
            bounds=self.options.bounds,
            faults=Faults(clock),
        )
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._durability: GroupCommit | None = None
        self._memory = MemoryReturn(lambda: self.engine.held_bytes)
        self._listeners: list[Listener] = []
        self._runner: web.ServerRunner | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def faults(self) -> Faults:
        """Orders for failures."""
        return self.gateway.faults

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Reads the topology, makes what is missing of key and certificates, and listens.

        Raises config.ConfigError, OSError (port in use, directory not writable or used by another broker).
        """
        self._load()
        authority = self._secure()
        self.engine.on_next_timer(self._arm)
        self._arm(self.engine.next_timer())
        self._memory.start()
        front = HttpFront(self)
        self._runner = web.ServerRunner(web.Server(front.handle))
        await self._runner.setup()
        self.port = self._listen(authority, self.options.port)
        self.admin_port = None if self.options.admin_port is None else self._listen(authority, self.options.admin_port)
        self.ca_path = authority.ca_path.absolute()  # clients run elsewhere
        self.connection_string = self._connection_string(self.port)
        self.admin_connection_string = self._connection_string(self.admin_port or self.port)

    def _load(self) -> None:
        """What is stored, then what the topology adds; of a topology that is refused, nothing is stored."""
        store = None if self.options.data is None else self._restored(self.options.data)
        try:
            if self.options.topology is not None:
                kept = store is not None
                topology = config.load_topology(self.engine, self.options.topology, keep_existing=kept)
                self.gateway.rules = topology.authorization_rules
        except BaseException:
            if store is not None:
                store.abandon()
            raise
        if store is not None:
            self._remember(store)

    def _restored(self, directory: Path) -> Store:
        """Takes up what the data directory has; what comes is collected, and not written yet."""
        store = Store(directory, self.options.data_sync, self.options.data_reserve_bytes)
        for complaint in store.restore(self.engine):
            logger.warning("%s: %s", directory, complaint)
        return store

    def _remember(self, store: Store) -> None:
        """Writes what was collected, and from now on what comes."""
        self._durability = GroupCommit(store, self.gateway)
        self.gateway.before_output = self._durability.before_output
        self._durability.commit()

    def committed(self) -> bool:
        """Makes everything durable that the engine was told so far; False if that is impossible at the moment."""
        return self._durability is None or self._durability.commit()

    def _secure(self) -> Authority:
        directory = self.options.ca_directory
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="fusebus-servicebus-")
            directory = Path(self._temporary.name)
        hosts = LOCAL_HOSTS if self.options.host in LOCAL_HOSTS else (*LOCAL_HOSTS, self.options.host)
        authority = ensure_authority(directory, hosts)
        self.gateway.key = self.options.key or kept_key(directory)
        return authority

    def _listen(self, authority: Authority, port: int) -> int:
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        listener = Listener(self.gateway, lambda: Connection(self.gateway), server, authority.server_context())
        bound = listener.start(self.options.host, port)
        self._listeners.append(listener)
        return bound

    def _connection_string(self, port: int) -> str:
        host = f"[{self.options.host}]" if ":" in self.options.host else self.options.host
        return (
            f"Endpoint=sb://{host}:{port};SharedAccessKeyName={KEY_NAME};"
            f"SharedAccessKey={self.gateway.key};UseDevelopmentEmulator=true"
        )

    async def stop(self) -> None:
        """Says goodbye to all clients and stops listening."""
        for listener in self._listeners:
            await listener.stop()
        self._listeners.clear()
        self.gateway.lobby.close()
        for connection in list(self.gateway.connections):
            connection.close(Error(condition="amqp:connection:forced", description="the broker stops"))
        await self._connections_gone()
        if self._runner is not None:
            await self._runner.cleanup()
        self._arm(None)
        self._memory.stop()
        self.engine.on_next_timer(None)
        if self._durability is not None:
            self._durability.close()
            self._durability = None
        if self._temporary is not None:
            self._temporary.cleanup()

    async def _connections_gone(self) -> None:
        deadline = asyncio.get_running_loop().time() + STOP_SECONDS
        while self.gateway.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.gateway.connections):
            connection.abort()

    # --- the engine's timers

    def _arm(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None:
            delay = max(0.0, when - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.engine.tick()
        self._arm(self.engine.next_timer())

    # --- failures on order

    def detach_links(
        self,
        entity: str | None = None,
        condition: str = DETACH_FORCED,
        description: str = "the broker was told to detach",
    ) -> int:
        """Detaches every sender and receiver of one entity, or of all, with an error; returns how many.

        Raises EntityNotFound.
        """
        found = self._links(entity)
        for link in found:
            link.detach(Error(condition=condition, description=description))
        return len(found)

    def reset_connections(self, entity: str | None = None) -> int:
        """Cuts every AMQP connection with a link to one entity, or all, without a goodbye; returns how many.

        Raises EntityNotFound.
        """
        path = None if entity is None else self.engine.resolve(entity).path
        found = [
            connection
            for connection in self.gateway.connections
            if path is None or any(link.entity == path for link in connection.links())
        ]
        for connection in found:
            connection.abort()
        return len(found)

    def lose_locks(self, entity: str | None = None) -> int:
        """Makes every message locked by a receiver of one entity, or of any, available, as if its lock had expired.

        Returns how many there were. Raises EntityNotFound.
        """
        return sum(link.lose_locks() for link in self._links(entity) if isinstance(link, EntityReceiver))

    def _links(self, entity: str | None) -> list[Link]:
        """The senders and receivers of one entity, or of all; raises EntityNotFound."""
        path = None if entity is None else self.engine.resolve(entity).path
        links = [link for connection in self.gateway.connections for link in connection.links()]
        return [link for link in links if link.entity and path in (None, link.entity)]

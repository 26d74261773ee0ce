"""One port for everything: AMQP, TLS and HTTP are told apart by a connection's first byte."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, cast

from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.lobby import Guest

logger = logging.getLogger(__name__)

TLS_HANDSHAKE = b"\x16"
AMQP_START = b"A"  # HTTP has no method that begins so
ACCEPT_PAUSE_SECONDS = 0.2  # after a failed accept, which means that file descriptors ran out
BACKLOG = 1024

ProtocolFactory = Callable[[], asyncio.Protocol]


class Gate(asyncio.Protocol):
    """Looks at the first byte (after TLS, if any) and hands the connection to AMQP or to HTTP."""

    def __init__(self, gateway: Gateway, guest: Guest, amqp: ProtocolFactory, http: ProtocolFactory) -> None:
        self._lobby = gateway.lobby
        self._guest = guest
        self._amqp = amqp
        self._http = http
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        self._guest.turn_out = self._transport.abort

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        if data[:1] == AMQP_START:
            self._lobby.leave(self._guest)  # the connection enters it anew
            protocol = self._amqp()
        else:
            self._lobby.wait_for_request(self._guest, transport)
            protocol = self._http()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._lobby.leave(self._guest)


class Listener:
    """Accepts connections on one address."""

    def __init__(self, gateway: Gateway, amqp: ProtocolFactory, http: ProtocolFactory, tls: ssl.SSLContext) -> None:
        self._gateway = gateway
        self._amqp = amqp
        self._http = http
        self._tls = tls
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, host: str, port: int) -> int:
        """Listens; returns the port, which is a free one if `port` is 0. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        listening.setblocking(False)
        self._socket = listening
        self._spawn(self._accept(listening))
        return int(listening.getsockname()[1])

    async def stop(self) -> None:
        """Stops listening; connections that were handed over live on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                logger.warning("accepting failed: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            accepted.setblocking(False)
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._receive(accepted)
            await asyncio.sleep(0)  # a flood must not keep the loop to itself: accepting alone never waits then

    def _receive(self, accepted: socket.socket) -> None:
        if self._gateway.full:
            self._gateway.tallies.refused.add()
            accepted.close()
            return
        guest = self._gateway.lobby.enter(accepted.close)
        task = self._spawn(self._hand_over(accepted, guest))
        task.add_done_callback(lambda task: accepted.close() if task.cancelled() else None)  # perhaps before it began
        guest.turn_out = task.cancel

    async def _hand_over(self, accepted: socket.socket, guest: Guest) -> None:
        """Tells TLS by its first byte; the guest's end cancels this."""
        loop = asyncio.get_running_loop()
        try:
            first = await _peek(accepted)
            if first:
                context = self._tls if first == TLS_HANDSHAKE else None
                gate = Gate(self._gateway, guest, self._amqp, self._http)
                await loop.connect_accepted_socket(lambda: gate, accepted, ssl=context)
                return
        except OSError as error:  # ssl.SSLError is one
            logger.debug("a connection went no further than its first bytes: %s", error)
            _let_go(error)
        except asyncio.CancelledError as error:
            _let_go(error)
            raise
        self._gateway.lobby.leave(guest)
        accepted.close()


def _let_go(error: BaseException) -> None:
    """A TLS handshake holds a quarter of a megabyte; its exception would keep that until the next large collection."""
    traceback.clear_frames(error.__traceback__)


async def _peek(accepted: socket.socket) -> bytes:
    """The first byte, left in the socket; empty if the client closed."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        if not arrived.done():
            arrived.set_result(None)

    loop.add_reader(accepted, readable)
    try:
        await arrived
    finally:
        loop.remove_reader(accepted)
    return accepted.recv(1, socket.MSG_PEEK)

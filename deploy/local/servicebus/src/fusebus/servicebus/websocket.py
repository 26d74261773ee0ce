"""AMQP inside WebSocket messages: what a Connection takes for its transport, over aiohttp's server side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import WSMsgType, web

WEBSOCKET_PATH = "/$servicebus/websocket"
SUBPROTOCOLS = ("AMQPWSB10", "amqp")  # what the Service Bus SDKs ask for; what the OASIS binding says
MAX_WEBSOCKET_MESSAGE_BYTES = 4 * 1024 * 1024  # holds several AMQP frames
HIGH_WATER_BYTES, LOW_WATER_BYTES = 65_536, 16_384  # as asyncio's own transports
MAX_WRITE_BYTES = 1024 * 1024  # in one WebSocket message
LAST_WORDS_SECONDS = 2.0  # what a client gets to take what was still to be sent


class WebSocketTransport(asyncio.Transport):
    """Bytes written in one turn of the event loop go out as one binary message."""

    def __init__(self, socket: web.WebSocketResponse, below: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._socket = socket
        self._below = below
        self._protocol = protocol
        self._output = bytearray()
        self._written = asyncio.Event()
        self._readable = asyncio.Event()
        self._readable.set()
        self._paused = self._closing = False

    # --- asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._output += data
        self._written.set()
        if not self._paused and len(self._output) > HIGH_WATER_BYTES:
            self._paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._output) + self._below.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._closing or self._below.is_closing()

    def close(self) -> None:
        self._closing = True
        self._written.set()
        self._readable.set()

    def abort(self) -> None:
        self._closing = True
        self._readable.set()
        self._below.abort()

    def pause_reading(self) -> None:
        self._readable.clear()

    def resume_reading(self) -> None:
        self._readable.set()

    # --- its two tasks

    async def read(self) -> None:
        """Hands over what comes, until the client or this side closes."""
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY:
                return  # AMQP is never text
            self._protocol.data_received(message.data)
            await self._readable.wait()

    async def send(self) -> None:
        """Sends what was written, and says goodbye once this side has closed."""
        while not (self._closing and not self._output):
            await self._written.wait()
            self._written.clear()
            while self._output:
                piece = bytes(self._output[:MAX_WRITE_BYTES])
                del self._output[:MAX_WRITE_BYTES]
                await self._socket.send_bytes(piece)  # waits while the client does not read
            if self._paused and len(self._output) <= LOW_WATER_BYTES:
                self._paused = False
                self._protocol.resume_writing()
        await self._socket.close()


async def serve(request: web.BaseRequest, connect: Callable[[], asyncio.Protocol]) -> web.StreamResponse:
    """Answers one upgrade request, and serves the AMQP connection inside until it ends."""
    socket = web.WebSocketResponse(
        protocols=SUBPROTOCOLS, max_msg_size=MAX_WEBSOCKET_MESSAGE_BYTES, compress=False, timeout=LAST_WORDS_SECONDS
    )
    if not socket.can_prepare(request).ok:
        return web.Response(
            status=426, text="This address speaks AMQP over WebSocket.", headers={"Upgrade": "websocket"}
        )
    await socket.prepare(request)
    assert request.transport is not None
    protocol = connect()
    transport = WebSocketTransport(socket, request.transport, protocol)
    protocol.connection_made(transport)
    sending = asyncio.create_task(transport.send())
    try:
        await transport.read()
    finally:
        protocol.connection_lost(None)
        transport.close()
        await asyncio.wait({sending}, timeout=LAST_WORDS_SECONDS)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    return socket

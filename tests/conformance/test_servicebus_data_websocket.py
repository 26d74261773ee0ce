"""The WebSocket below the SDKs: its handshake, its bounds, and clients that misbehave."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fusebus.servicebus.amqp.frames import AMQP_HEADER, SASL_FRAME, SASL_HEADER, FrameReader, build_frame
from fusebus.servicebus.amqp.performatives import Attach, Begin, Flow, Open, SaslInit, SaslOutcome, Source, Target
from fusebus.servicebus.bounds import ClientBounds
from fusebus.servicebus.broker import KEY_NAME, Broker, BrokerOptions
from fusebus.servicebus.engine import Message

PATH = "/$servicebus/websocket"
ANSWER_SECONDS = 20.0
Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    directory: Path = tmp_path_factory.getbasetemp() / "broker-authority"

    @asynccontextmanager
    async def started(**bounds: Any) -> AsyncIterator[Broker]:
        topology = {"queues": [{"name": "work"}]}
        options = BrokerOptions(topology=topology, ca_directory=directory, key="key", bounds=ClientBounds(**bounds))
        async with Broker(options) as broker:
            yield broker

    return started


@asynccontextmanager
async def dialled(
    broker: Broker, scheme: str = "ws", protocol: str = "AMQPWSB10"
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    context = ssl.create_default_context(cafile=str(broker.ca_path))
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{scheme}://127.0.0.1:{broker.port}{PATH}",
            protocols=(protocol,),
            ssl=context,
            max_msg_size=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=0.5),
        ) as socket,
    ):
        assert socket.protocol == protocol
        yield socket


async def open_amqp(socket: aiohttp.ClientWebSocketResponse) -> FrameReader:
    """SASL PLAIN, open, begin; every header and frame in messages of a single byte each, as TCP could cut them."""
    init = SaslInit(mechanism="PLAIN", initial_response=f"\0{KEY_NAME}\0key".encode())
    for byte in SASL_HEADER + build_frame(0, init.encoded(), kind=SASL_FRAME) + AMQP_HEADER:
        await socket.send_bytes(bytes((byte,)))
    await socket.send_bytes(
        build_frame(0, Open(container_id="test").encoded())
        + build_frame(1, Begin(next_outgoing_id=0, incoming_window=10_000, outgoing_window=10).encoded())
    )
    frames, header_is_due = FrameReader(limit=1 << 20), True
    while True:
        async with asyncio.timeout(ANSWER_SECONDS):
            frames.feed(await socket.receive_bytes())
        while not header_is_due or frames.next_protocol_header() is not None:
            frame = frames.next_frame()
            header_is_due = frame is not None and isinstance(frame.performative, SaslOutcome)
            if frame is None:
                break
            if isinstance(frame.performative, Begin):
                return frames


@pytest.mark.parametrize(("scheme", "protocol"), [("ws", "AMQPWSB10"), ("wss", "AMQPWSB10"), ("ws", "amqp")])
async def test_amqp_is_spoken_in_messages_cut_anywhere(start: Start, scheme: str, protocol: str) -> None:
    async with start() as broker, dialled(broker, scheme, protocol) as socket:
        await open_amqp(socket)
        assert len(broker.gateway.connections) == 1
    await until(lambda: not broker.gateway.connections)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(ANSWER_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_plain_request_is_told_to_upgrade(start: Start) -> None:
    async with (
        start() as broker,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{broker.port}{PATH}") as answer,
    ):
        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")


@pytest.mark.parametrize("said", [SASL_HEADER, b"nonsense", b""])
async def test_a_handshake_inside_is_bounded_as_outside(start: Start, said: bytes) -> None:
    async with start(handshake_seconds=0.3) as broker, dialled(broker) as socket:
        await socket.send_bytes(said)
        async with asyncio.timeout(ANSWER_SECONDS):
            while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
        await until(lambda: len(broker.gateway.lobby) == 0)


@pytest.mark.parametrize("message", ["text", bytes(5_000_000)], ids=["text", "too large"])
async def test_what_amqp_never_sends_ends_the_connection(start: Start, message: Any) -> None:
    async with start() as broker, dialled(broker) as socket:
        await open_amqp(socket)
        with suppress(ConnectionError):  # cut off while it still sends
            await (socket.send_str if isinstance(message, str) else socket.send_bytes)(message)
        await until(lambda: not broker.gateway.connections)


async def test_a_client_that_does_not_read_is_held_back_and_then_cut_off(start: Start) -> None:
    async with start(unread_seconds=0.5) as broker, dialled(broker) as socket:
        body = b"\x00\x53\x75\xb0" + (200_000).to_bytes(4, "big") + bytes(200_000)
        broker.engine.send("work", [Message(raw=body) for _ in range(400)])
        await open_amqp(socket)
        source, target = Source(address="work"), Target(address="here")
        await socket.send_bytes(
            build_frame(1, Attach(name="r", handle=0, role=True, source=source, target=target).encoded())
            + build_frame(
                1, Flow(next_incoming_id=0, incoming_window=9000, handle=0, delivery_count=0, link_credit=400).encoded()
            )
        )
        (connection,) = broker.gateway.connections
        socket._reader._protocol.pause_reading()  # the client's own buffer would go on reading
        largest = 0
        async with asyncio.timeout(ANSWER_SECONDS):
            while broker.gateway.connections:
                largest = max(largest, connection.output_bytes)
                await asyncio.sleep(0.01)
        assert 0 < largest < 10_000_000
        assert broker.gateway.tallies.unread.count == 1

"""What clients that misbehave may cost: half-open, silent, deaf, oversized and never settling ones."""

import asyncio
import gc
import logging
import resource
import socket
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from amqp_client import ANSWER_SECONDS, Client, connected, dialled
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from fusebus.servicebus import sas
from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.frames import EMPTY_FRAME, SASL_HEADER
from fusebus.servicebus.amqp.performatives import Accepted, Close, Disposition, Rejected, Transfer
from fusebus.servicebus.amqp.types import Int, Long
from fusebus.servicebus.bounds import ClientBounds
from fusebus.servicebus.broker import KEY_NAME, Broker, BrokerOptions
from fusebus.servicebus.engine import Message

HALF_OPEN = 10_000  # connections, ten times as many as are allowed
FLOOD_SECONDS = 60.0  # for all of them; some 1500 a second are usual
BODY = b"\x00\x53\x75"
Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """`async with start(idle_seconds=1) as broker:`: bounds as given, one queue with locks of a second."""
    directory: Path = tmp_path_factory.getbasetemp() / "broker-authority"
    topology = {"queues": [{"name": "work", "lock_seconds": 1, "max_delivery_count": 100}]}

    @asynccontextmanager
    async def started(**bounds: Any) -> AsyncIterator[Broker]:
        options = BrokerOptions(topology=topology, ca_directory=directory, key="key", bounds=ClientBounds(**bounds))
        async with Broker(options) as broker:
            yield broker

    return started


async def until(condition: Callable[[], bool | int], seconds: float = ANSWER_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def fill(broker: Broker, count: int, size: int = 1) -> None:
    body = BODY + b"\xb0" + size.to_bytes(4, "big") + bytes(size)
    broker.engine.send("work", [Message(raw=body) for _ in range(count)])


async def end_of(client: Client) -> None:
    """The broker cuts the connection."""
    async with asyncio.timeout(ANSWER_SECONDS):
        try:
            while await client.reader.read(65536):
                pass
        except ConnectionError:
            pass


SAYINGS: dict[str, bytes] = {"nothing": b"", "an amqp header": SASL_HEADER, "half a request": b"GET /", "tls": b"\x16"}


@pytest.mark.parametrize("said", SAYINGS)
async def test_a_handshake_that_takes_too_long_is_cut_off(
    start: Start, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(handshake_seconds=0.2) as broker, dialled(broker) as client:
        client.raw(SAYINGS[said])
        await end_of(client)
        await until(lambda: len(broker.gateway.lobby) == 0)
    assert "the handshake took too long: 1" in caplog.text


@pytest.mark.parametrize("path", ["/work", "/$faults"])
async def test_a_request_whose_body_does_not_come_is_cut_off(
    start: Start, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(handshake_seconds=0.3) as broker:
        token = sas.make_token(f"sb://127.0.0.1:{broker.port}", KEY_NAME, "key", 4_000_000_000)
        async with dialled(broker) as client:
            head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 9\r\n\r\n<a"
            client.raw(head.encode())
            async with asyncio.timeout(ANSWER_SECONDS):
                assert (await client.reader.readline()).startswith(b"HTTP/1.1 408 ")
    assert "the handshake took too long: 1" in caplog.text


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as this process may have; each of the connections below is one, and more at the broker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < HALF_OPEN + 4000:
        pytest.skip(f"{hard} open files at most are too few for this test")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_ten_thousand_half_open_connections_keep_no_honest_client_out(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start() as broker:
        before, files = resident_bytes(), open_files()
        sockets = await asyncio.to_thread(half_open, broker.port)
        allowed = broker.gateway.bounds.half_open_connections
        await until(lambda: broker.gateway.tallies.evicted.count >= HALF_OPEN - allowed, FLOOD_SECONDS)
        assert len(broker.gateway.lobby) == allowed
        assert len(broker.gateway.connections) <= allowed
        async with (
            ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client,
            client.get_queue_sender("work") as sender,
        ):
            await sender.send_messages(ServiceBusMessage("still served"))
        assert broker.engine.counts("work").active == 1
        assert resident_bytes() - before < 200_000_000
        for each in sockets:
            each.close()
        # Those with half a request are given up only when their time is over.
        await until(lambda: len(broker.gateway.lobby) <= allowed // len(SAYINGS) + 1)
        assert len(broker.gateway.connections) == 0
        await until(lambda: open_files() < files + allowed)
    lines = [record for record in caplog.records if "too many are half open" in record.getMessage()]
    assert 1 <= len(lines) < FLOOD_SECONDS  # one a second at most


def half_open(port: int) -> list[socket.socket]:
    """Connections that have said something, or nothing, and then wait."""
    sayings = [*SAYINGS.values()]
    sockets = []
    for number in range(HALF_OPEN):
        made = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        with suppress(ConnectionError):  # it has to go already
            made.sendall(sayings[number % len(sayings)])
        sockets.append(made)
    return sockets


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_more_connections_than_allowed_are_refused_at_once(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(connections=2) as broker, connected(broker), connected(broker):
        async with dialled(broker) as third:
            await end_of(third)
        await until(lambda: broker.gateway.tallies.refused.count == 1)
    assert "connections refused" in caplog.text


async def test_a_silent_client_is_cut_off_and_one_with_a_heartbeat_is_not(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(idle_seconds=0.3) as broker, connected(broker) as silent, connected(broker) as lively:
        beat = asyncio.create_task(_beat(lively))
        closed = await silent.expect(Close)
        assert closed.error.condition == "amqp:connection:forced"
        assert (await lively.receiver("work")).source is not None
        beat.cancel()
    assert "the client was silent for too long: 1" in caplog.text


async def _beat(client: Client) -> None:
    while True:
        client.raw(EMPTY_FRAME)
        await asyncio.sleep(0.1)


async def test_the_sdk_keeps_a_quiet_receiver_alive_and_a_quiet_sender_comes_back(start: Start) -> None:
    async with (
        start(idle_seconds=1.0) as broker,
        ServiceBusClient.from_connection_string(broker.connection_string, retry_backoff_factor=0.1) as client,
        client.get_queue_sender("work") as sender,
        client.get_queue_receiver("work") as receiver,
    ):
        await sender.send_messages(ServiceBusMessage("first"))
        assert await receiver.receive_messages(1, max_wait_time=2)
        assert await receiver.receive_messages(1, max_wait_time=3)  # the lock ran out; nobody was cut off meanwhile
        await until(lambda: broker.gateway.tallies.idle.count > 0)  # the sender said nothing
        await sender.send_messages(ServiceBusMessage("second"))
        assert broker.engine.counts("work").active == 2


async def test_a_client_that_does_not_read_is_not_listened_to_and_then_cut_off(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 1_000_000
    async with start(unread_bytes=limit, unread_seconds=0.5) as broker, connected(broker) as client:
        fill(broker, 4, size=250_000)
        await client.receiver("work/$management")
        await client.sender("work/$management", handle=1)
        client.credit(10_000)
        (connection,) = broker.gateway.connections
        body = {"from-sequence-number": Long(1), "message-count": Int(4)}
        request = sections.message([None], {"operation": "com.microsoft:peek-message"}, body)
        for _ in range(200):  # answers of a megabyte each
            client.send(Transfer(handle=1, delivery_id=0, delivery_tag=b"1", settled=True), payload=request)
        largest = 0
        async with asyncio.timeout(ANSWER_SECONDS):
            while broker.gateway.connections:
                largest = max(largest, connection.output_bytes)
                await asyncio.sleep(0.01)
        assert 0 < largest < 4 * limit  # one turn's answers, and what the socket had not taken before
    assert "the client does not read: 1" in caplog.text


@pytest.mark.parametrize(("credit", "window"), [(0, 1000), (10_000, 0)], ids=["no credit", "no window"])
async def test_answers_that_a_client_does_not_let_out_are_kept_up_to_a_bound(
    start: Start, credit: int, window: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(held_bytes=2_000_000) as broker, connected(broker) as client:
        fill(broker, 4, size=250_000)
        await client.receiver("work/$management")
        await client.sender("work/$management", handle=1)
        client.credit(credit, window=window)
        body = {"from-sequence-number": Long(1), "message-count": Int(4)}
        request = sections.message([None], {"operation": "com.microsoft:peek-message"}, body)
        ask = Transfer(handle=1, delivery_id=0, delivery_tag=b"1", settled=True)
        client.send(ask, payload=request)
        await client.quiet()
        assert broker.gateway.connections
        client.send(ask, payload=request)
        await until(lambda: not broker.gateway.connections)
    assert "too much was kept for the client: 1" in caplog.text


async def test_unfinished_messages_are_kept_up_to_a_bound(start: Start) -> None:
    async with start(held_bytes=1_000_000) as broker, connected(broker) as client:
        for handle in range(6):
            await client.sender("work", handle=handle)
        part = bytes(200_000)
        for round_ in range(3):  # finished or given up, they count no more
            for handle in range(4):
                client.send(Transfer(handle=handle, delivery_id=round_, delivery_tag=b"t", more=True), payload=part)
            for handle in range(4):
                client.send(Transfer(handle=handle, delivery_id=round_, delivery_tag=b"t", aborted=True))
        await client.quiet()
        for handle in range(6):
            client.send(Transfer(handle=handle, delivery_id=9, delivery_tag=b"t", more=True), payload=part)
        await until(lambda: not broker.gateway.connections)
        assert broker.gateway.tallies.held.count == 1


@pytest.mark.parametrize("node", ["work/$management", "$cbs"])
async def test_of_requests_that_are_too_large_only_the_beginning_is_kept(start: Start, node: str) -> None:
    links, part, parts = 8, bytes(700_000), 5
    async with start(held_bytes=1_000_000) as broker, connected(broker) as client:
        await client.receiver(node)
        client.credit(links)
        for handle in range(1, 1 + links):
            await client.sender(node, handle=handle)
        tracemalloc.start()
        try:
            for handle in range(1, 1 + links):
                begun = sections.message([f"id-{handle}"], {"operation": "any"}, part)
                for piece in (begun, *[part] * (parts - 2)):
                    client.send(Transfer(handle=handle, delivery_id=0, delivery_tag=b"t", more=True), payload=piece)
                await client.quiet()
            assert tracemalloc.get_traced_memory()[0] < links * len(part) / 2
        finally:
            tracemalloc.stop()
        for handle in range(1, 1 + links):
            client.send(Transfer(handle=handle, delivery_id=0, delivery_tag=b"t", settled=True), payload=part)
            answer = sections.parse_message((await client.message())[1])
            assert answer.properties["correlation_id"] == f"id-{handle}"
            told = answer.application_properties
            assert told.get("statusCode", told.get("status-code")) == 403
            condition = None if node == "$cbs" else "amqp:link:message-size-exceeded"
            assert told.get("errorCondition") == condition
        assert len(broker.gateway.connections) == 1


async def test_a_request_too_large_to_say_who_asks_is_answered_all_the_same(start: Start) -> None:
    async with start() as broker, connected(broker) as client:
        await client.receiver("work/$management")
        await client.sender("work/$management", handle=1)
        client.credit(10)
        for beginning in (sections.message(["i" * 5000], {}, None), b"\xff" * 5000, b"\x00\x53"):
            for more, piece in ((True, beginning), (True, bytes(700_000)), (False, bytes(700_000))):
                client.send(
                    Transfer(handle=1, delivery_id=0, delivery_tag=b"t", settled=True, more=more), payload=piece
                )
            answer = sections.parse_message((await client.message())[1])
            assert answer.application_properties["statusCode"] == 403
            assert answer.properties.get("correlation_id") is None


async def test_a_client_that_never_settles_is_held_back_until_its_locks_are_lost(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(unsettled_deliveries=5) as broker, connected(broker) as client:
        fill(broker, 8)
        await client.receiver("work")
        client.credit(1000)
        assert [(await client.message())[0].delivery_id for _ in range(5)] == [0, 1, 2, 3, 4]
        await client.quiet()
        client.send(Disposition(role=True, first=0, last=0, state=Accepted()))
        assert (await client.expect(Disposition)).state == Accepted()
        assert (await client.message())[0].delivery_id == 5  # one settled, one delivered
        await client.quiet()
        assert (await client.message())[0].delivery_id == 6  # the others' locks were lost by now
        client.send(Disposition(role=True, first=1, last=1, state=Accepted()))
        answer = await _next_disposition(client)
        assert isinstance(answer.state, Rejected)
        assert answer.state.error is not None
        assert answer.state.error.condition == "com.microsoft:message-lock-lost"
    assert "too many deliveries are unsettled" in caplog.text


async def _next_disposition(client: Client) -> Disposition:
    while True:
        performative, _ = await client.next()
        if isinstance(performative, Disposition):
            return performative


async def test_a_frame_larger_than_announced_is_logged_and_ends_its_connection(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start() as broker, connected(broker) as client:
        client.raw(b"\x7f\xff\xff\xff\x02\x00\x00\x01")
        assert (await client.expect(Close)).error.condition == "amqp:decode-error"
        await end_of(client)
    assert "frame of 2147483647 bytes" in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_client_that_asks_much_at_once_and_reads_gets_every_answer(start: Start) -> None:
    async with start(unread_bytes=300_000) as broker, connected(broker) as client:
        fill(broker, 4, size=250_000)
        await client.receiver("work/$management")
        await client.sender("work/$management", handle=1)
        client.credit(10_000, window=10_000)
        body = {"from-sequence-number": Long(1), "message-count": Int(4)}
        for number in range(100):
            request = sections.message([f"id-{number}"], {"operation": "com.microsoft:peek-message"}, body)
            client.send(Transfer(handle=1, delivery_id=0, delivery_tag=b"1", settled=True), payload=request)
        for number in range(100):
            _, payload = await client.message()
            assert sections.parse_message(payload).properties["correlation_id"] == f"id-{number}"


async def test_a_connection_that_ended_is_gone_before_any_collection(start: Start) -> None:
    """What it had read last is up to 256 KB, and the collector comes seldom: memory would grow with every client."""
    async with start() as broker:
        fill(broker, 5)
        gc.collect()
        gc.disable()
        try:
            async with (
                ServiceBusClient.from_connection_string(broker.connection_string) as client,
                client.get_queue_receiver("work") as receiver,
            ):
                async with client.get_queue_sender("work") as sender:
                    await sender.send_messages(ServiceBusMessage("one more"))
                messages = await receiver.receive_messages(max_message_count=3, max_wait_time=ANSWER_SECONDS)
                await receiver.complete_message(messages[0])
                opened = [weakref.ref(connection) for connection in broker.gateway.connections]
            assert opened
            await until(lambda: all(connection() is None for connection in opened))
        finally:
            gc.enable()

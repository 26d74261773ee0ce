"""The same clients over every transport, all on one port: AMQP, AMQP over TLS, over WebSocket and over both."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient as SyncClient
from azure.servicebus import ServiceBusMessage, TransportType
from azure.servicebus.aio import ServiceBusClient

from fusebus.servicebus.broker import Broker, BrokerOptions

WAIT_SECONDS = 20.0
EMULATOR = ";UseDevelopmentEmulator=true"
SIZES = (0, 1, 70_000, 200_000)  # bytes: below and above what one WebSocket or AMQP buffer holds
# What each transport needs besides the connection string: without the emulator's flag the SDK speaks TLS, and both TLS
# and WebSocket forget the connection string's port, which only `custom_endpoint_address` brings back.
TRANSPORTS = {
    "amqp": (True, False, None),
    "amqp over tls": (False, True, TransportType.Amqp),
    "amqp over websocket": (True, True, TransportType.AmqpOverWebsocket),
    "amqp over websocket over tls": (False, True, TransportType.AmqpOverWebsocket),
}


@pytest.fixture
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    directory: Path = tmp_path_factory.getbasetemp() / "broker-authority"
    async with Broker(BrokerOptions(topology={"queues": [{"name": "work"}]}, ca_directory=directory)) as broker:
        yield broker


def settings(broker: Broker, transport: str) -> tuple[str, dict[str, Any]]:
    """Connection string and client arguments."""
    plain, custom, kind = TRANSPORTS[transport]
    text = broker.connection_string if plain else broker.connection_string.replace(EMULATOR, "")
    options: dict[str, Any] = {"retry_total": 0, "connection_verify": str(broker.ca_path)}
    if custom:
        options |= {"transport_type": kind, "custom_endpoint_address": f"sb://127.0.0.1:{broker.port}"}
    return text, options


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_messages_of_any_size_go_both_ways_with_asyncio(broker: Broker, transport: str) -> None:
    text, options = settings(broker, transport)
    async with (
        ServiceBusClient.from_connection_string(text, **options) as client,
        client.get_queue_sender("work") as sender,
        client.get_queue_receiver("work", prefetch_count=10) as receiver,
    ):
        for size in SIZES:
            await sender.send_messages(ServiceBusMessage(bytes(size)))
        received: list[Any] = []
        while len(received) < len(SIZES):
            messages = await receiver.receive_messages(len(SIZES), max_wait_time=WAIT_SECONDS)
            assert messages
            received += messages
        assert [len(b"".join(message.body)) for message in received] == list(SIZES)
        for message in received:
            await receiver.complete_message(message)
        assert await receiver.peek_messages(sequence_number=1) == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_messages_go_both_ways_with_threads(broker: Broker, transport: str) -> None:
    text, options = settings(broker, transport)

    def run() -> list[int]:
        with (
            SyncClient.from_connection_string(text, **options) as client,
            client.get_queue_sender("work") as sender,
            client.get_queue_receiver("work") as receiver,
        ):
            sizes = []
            for size in SIZES:
                sender.send_messages(ServiceBusMessage(bytes(size)))
                (message,) = receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
                sizes.append(len(b"".join(message.body)))
                receiver.complete_message(message)
            return sizes

    assert await asyncio.to_thread(run) == list(SIZES)
    assert broker.engine.counts("work").total == 0

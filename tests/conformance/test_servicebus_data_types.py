"""Bodies and annotations of every AMQP type through the unmodified SDK."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType

from fusebus.servicebus.broker import Broker, BrokerOptions

WAIT_SECONDS = 5.0
PLAIN: list[Any] = [None, True, 7, -(2**30), 1.5, "text", b"\x00\xff", UUID(int=5)]
NESTED = {b"list": [1, [2, {b"k": b"v"}]], b"none": None, b"big": 2**30}


@pytest.fixture
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServiceBusClient]:
    directory: Path = tmp_path_factory.getbasetemp() / "broker-authority"
    options = BrokerOptions(topology={"queues": [{"name": "work"}]}, ca_directory=directory)
    async with (
        Broker(options) as broker,
        ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client,
    ):
        yield client


async def test_data_value_and_sequence_bodies_keep_their_type_and_values(client: ServiceBusClient) -> None:
    annotations = {b"own": b"text", b"number": 2**30, b"when": 5, b"id": UUID(int=9)}
    sent: list[tuple[AmqpMessageBodyType, dict[str, Any], Any]] = [
        (AmqpMessageBodyType.DATA, {"data_body": [b"\x00\x01", b"two"]}, [b"\x00\x01", b"two"]),
        (AmqpMessageBodyType.SEQUENCE, {"sequence_body": [PLAIN[:5], [NESTED]]}, [PLAIN[:5], [NESTED]]),
        *((AmqpMessageBodyType.VALUE, {"value_body": value}, value) for value in (*PLAIN[1:5], NESTED, UUID(int=5))),
        (AmqpMessageBodyType.VALUE, {"value_body": "text"}, b"text"),  # the SDK does not decode strings
    ]
    async with client.get_queue_sender("work") as sender, client.get_queue_receiver("work") as receiver:
        for _, body, _ in sent:
            properties = {"flag": True, "when": datetime(2026, 1, 2, tzinfo=UTC)}
            message = AmqpAnnotatedMessage(
                **body, annotations=annotations, application_properties=properties, footer={b"end": 1}
            )
            await sender.send_messages(message)
        for kind, _, expected in sent:
            (received,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
            raw = received.raw_amqp_message
            assert raw.body_type == kind
            body = raw.body if kind is AmqpMessageBodyType.VALUE else list(raw.body)
            assert body == expected
            assert {key: raw.annotations[key] for key in annotations} == annotations
            assert raw.footer == {b"end": 1}
            assert received.application_properties[b"flag"] is True
            await receiver.complete_message(received)

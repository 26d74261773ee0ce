"""Bodies and annotations of every AMQP type through both clients of the unmodified SDK."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from either_client import CLIENTS, all_closed, done, opened, receive

from fusebus.servicebus.testing import BrokerThread

TOPOLOGY = {"queues": [{"name": "work"}]}
PLAIN: list[Any] = [None, True, 7, -(2**30), 1.5, "text", b"\x00\xff", UUID(int=5)]
NESTED = {b"list": [1, [2, {b"k": b"v"}]], b"none": None, b"big": 2**30}


@pytest.fixture(params=CLIENTS)
async def client(broker: BrokerThread, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    made = CLIENTS[request.param].from_connection_string(broker.connection_string, retry_total=0)
    async with opened(made):
        yield made
    await all_closed()


async def test_data_value_and_sequence_bodies_keep_their_type_and_values(client: Any) -> None:
    annotations = {b"own": b"text", b"number": 2**30, b"when": 5, b"id": UUID(int=9)}
    sent: list[tuple[AmqpMessageBodyType, dict[str, Any], Any]] = [
        (AmqpMessageBodyType.DATA, {"data_body": [b"\x00\x01", b"two"]}, [b"\x00\x01", b"two"]),
        (AmqpMessageBodyType.SEQUENCE, {"sequence_body": [PLAIN[:5], [NESTED]]}, [PLAIN[:5], [NESTED]]),
        *((AmqpMessageBodyType.VALUE, {"value_body": value}, value) for value in (*PLAIN[1:5], NESTED, UUID(int=5))),
        (AmqpMessageBodyType.VALUE, {"value_body": "text"}, b"text"),  # the SDK does not decode strings
    ]
    async with opened(client.get_queue_sender("work"), client.get_queue_receiver("work")) as (sender, receiver):
        for _, body, _ in sent:
            properties = {"flag": True, "when": datetime(2026, 1, 2, tzinfo=UTC)}
            message = AmqpAnnotatedMessage(
                **body, annotations=annotations, application_properties=properties, footer={b"end": 1}
            )
            await done(sender.send_messages(message))
        for kind, _, expected in sent:
            (received,) = await receive(receiver)
            raw = received.raw_amqp_message
            assert raw.body_type == kind
            body = raw.body if kind is AmqpMessageBodyType.VALUE else list(raw.body)
            assert body == expected
            assert {key: raw.annotations[key] for key in annotations} == annotations
            assert raw.footer == {b"end": 1}
            assert received.application_properties[b"flag"] is True
            await done(receiver.complete_message(received))

"""Sub-queues, batch deletion and message sizes, through the SDK where it can and below it where it can't."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amqp_client import Client, connected
from azure.servicebus import ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import MessageSizeExceededError
from raw_amqp import envelope

from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.performatives import Disposition, Rejected, Transfer
from fusebus.servicebus.amqp.sections import BATCH_FORMAT
from fusebus.servicebus.amqp.types import Int, Symbol, Timestamp
from fusebus.servicebus.broker import Broker, BrokerOptions
from fusebus.servicebus.engine import Message, QueueSettings, SubscriptionSettings
from fusebus.servicebus.tier import Tier

WAIT_SECONDS = 20.0
KILOBYTE = 1024


@pytest.fixture
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory: Path = tmp_path_factory.getbasetemp() / "broker-authority"
    return {"ca_directory": directory, "key": "key"}


@pytest.fixture
async def broker(options: dict[str, Any]) -> AsyncIterator[Broker]:
    async with Broker(BrokerOptions(**options)) as broker:
        yield broker


def client_of(broker: Broker) -> ServiceBusClient:
    return ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0)


async def test_what_cannot_be_forwarded_is_found_in_the_transfer_dead_letter_queue(broker: Broker) -> None:
    namespace = broker.engine.namespace
    namespace.create_queue("target")
    namespace.create_queue("source", QueueSettings(forward_to="target"))
    namespace.create_topic("images")
    namespace.create_subscription("images", "all", SubscriptionSettings(forward_to="target"))
    namespace.delete_queue("target")
    async with client_of(broker) as client:
        for sender in (client.get_queue_sender("source"), client.get_topic_sender("images")):
            async with sender:
                await sender.send_messages(ServiceBusMessage("lost"))
        sub_queue = ServiceBusSubQueue.TRANSFER_DEAD_LETTER
        for receiver in (
            client.get_queue_receiver("source", sub_queue=sub_queue),
            client.get_subscription_receiver("images", "all", sub_queue=sub_queue),
        ):
            async with receiver:
                (peeked,) = await receiver.peek_messages(5)
                (message,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
                assert str(message) == str(peeked) == "lost"
                assert message.dead_letter_reason
                await receiver.complete_message(message)


@pytest.mark.parametrize(("tier", "limit"), [(Tier.BASIC, 256), (Tier.STANDARD, 256), (Tier.PREMIUM, 1024)])
async def test_the_tier_sets_the_largest_message(options: dict[str, Any], tier: Tier, limit: int) -> None:
    async with Broker(BrokerOptions(topology={"queues": [{"name": "work"}]}, tier=tier, **options)) as broker:
        async with client_of(broker) as client, client.get_queue_sender("work") as sender:
            batch = await sender.create_message_batch()
            assert batch.max_size_in_bytes == limit * KILOBYTE
            await sender.send_messages(ServiceBusMessage(bytes((limit - 1) * KILOBYTE)))
            with pytest.raises(MessageSizeExceededError):
                await sender.send_messages(ServiceBusMessage(bytes(limit * KILOBYTE)))
            with pytest.raises(MessageSizeExceededError):
                batch.add_message(ServiceBusMessage(bytes(limit * KILOBYTE)))
            half = ServiceBusMessage(bytes(limit * KILOBYTE // 2 - 1000))
            await sender.send_messages([half, half])
            with pytest.raises(MessageSizeExceededError):
                await sender.send_messages([half, half, half])
        assert broker.engine.counts("work").active == 3


async def test_an_entity_of_the_premium_tier_may_take_larger_messages(options: dict[str, Any]) -> None:
    async with Broker(BrokerOptions(tier=Tier.PREMIUM, **options)) as broker:
        broker.engine.namespace.create_queue("large", QueueSettings(max_message_kilobytes=10 * KILOBYTE))
        body = bytes(index % 251 for index in range(5_000_000))
        async with (
            client_of(broker) as client,
            client.get_queue_sender("large") as sender,
            client.get_queue_receiver("large") as receiver,
        ):
            await sender.send_messages(ServiceBusMessage(body))
            (message,) = await receiver.receive_messages(1, max_wait_time=WAIT_SECONDS)
            assert b"".join(message.body) == body
            await receiver.complete_message(message)
            assert (await sender.create_message_batch()).max_size_in_bytes == KILOBYTE * KILOBYTE  # as of any entity


async def test_a_batch_is_refused_beyond_its_own_limit_wherever_messages_may_be_larger(options: dict[str, Any]) -> None:
    async with Broker(BrokerOptions(tier=Tier.PREMIUM, **options)) as broker:
        broker.engine.namespace.create_queue("large", QueueSettings(max_message_kilobytes=10 * KILOBYTE))
        async with connected(broker) as client:
            await client.sender("large")
            body = sections.message(["id"], {}, bytes(700_000))
            for number, message_format, messages, condition in (
                (0, 0, [body], None),
                (1, BATCH_FORMAT, [body], None),
                (2, BATCH_FORMAT, [body, body], "amqp:link:message-size-exceeded"),
            ):
                payload = envelope(messages) if message_format else messages[0]
                first = Transfer(
                    handle=0, delivery_id=number, delivery_tag=b"t", message_format=message_format, more=True
                )
                for start in range(0, len(payload), 60_000):
                    client.send(
                        replace(first, more=start + 60_000 < len(payload)), payload=payload[start : start + 60_000]
                    )
                state = (await client.expect(Disposition)).state
                assert (state.error.condition if isinstance(state, Rejected) else None) == condition
        assert broker.engine.counts("large").active == 2


async def manage(client: Client, operation: str, body: Any) -> tuple[dict[str, Any], Any]:
    request = sections.message(["id"], {"operation": f"com.microsoft:{operation}"}, body)
    client.send(Transfer(handle=1, delivery_id=0, delivery_tag=b"1", settled=True), payload=request)
    _, payload = await client.message()
    return sections.parse_message(payload).application_properties, sections.body_value(payload)


async def test_batch_deletion_takes_the_oldest_up_to_a_time(broker: Broker) -> None:
    broker.engine.namespace.create_queue("work")
    broker.engine.send("work", [Message(raw=b"\x00\x53\x75\xa0\x01x") for _ in range(5)])
    async with connected(broker) as client:
        await client.receiver("work/$management")
        await client.sender("work/$management", handle=1)
        client.credit(10)
        now = Timestamp(int(time.time() * 1000) + 1000)
        for count, before, status, deleted in ((3, now, 200, 3), (100, Timestamp(1), 204, 0), (100, now, 200, 2)):
            request = {"message-count": Int(count), "enqueued-time-utc": before}
            properties, body = await manage(client, "batch-delete-messages", request)
            assert (properties["statusCode"], body["message-count"]) == (status, deleted)
    assert broker.engine.counts("work").total == 0


async def test_rules_are_refused_where_there_are_none_and_when_they_are_wrong(broker: Broker) -> None:
    broker.engine.namespace.create_queue("work")
    broker.engine.namespace.create_topic("images")
    broker.engine.namespace.create_subscription("images", "all")
    for path, description, status, condition in (
        ("work", {"sql-filter": {"expression": "1=1"}}, 400, "amqp:not-allowed"),
        ("images/Subscriptions/all", {}, 400, "com.microsoft:argument-error"),
        ("images/Subscriptions/all", {"sql-filter": {"expression": "size >"}}, 400, "com.microsoft:argument-error"),
        ("images/Subscriptions/all", {"correlation-filter": {"label": "s", "properties": {"n": Int(1)}}}, 200, None),
    ):
        async with connected(broker) as client:
            await client.receiver(f"{path}/$management")
            await client.sender(f"{path}/$management", handle=1)
            client.credit(10)
            properties, _ = await manage(client, "add-rule", {"rule-name": "r", "rule-description": description})
            assert properties["statusCode"] == status, properties
            assert properties.get("errorCondition") == (condition and Symbol(condition))

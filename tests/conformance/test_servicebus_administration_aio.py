"""The administration API through the unmodified asyncio SDK, over https."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from azure.core.exceptions import ClientAuthenticationError, ResourceExistsError, ResourceNotFoundError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.aio.management import ServiceBusAdministrationClient
from azure.servicebus.management import CorrelationRuleFilter, SqlRuleFilter

from fusebus.servicebus.testing import BrokerThread

TOPOLOGY = {"topics": [{"name": "images", "subscriptions": [{"name": "detect", "lock_seconds": 30}]}]}


@pytest.fixture
async def client(broker: BrokerThread) -> AsyncIterator[ServiceBusAdministrationClient]:
    async with ServiceBusAdministrationClient.from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path), retry_total=0
    ) as client:
        yield client


async def test_entities_are_created_listed_changed_and_deleted(client: ServiceBusAdministrationClient) -> None:
    await client.create_queue("orders", lock_duration=timedelta(seconds=5))
    await client.create_topic("results", requires_duplicate_detection=True)
    made = await client.create_subscription("results", "notifier", max_delivery_count=50)
    made.dead_lettering_on_message_expiration = True
    await client.update_subscription("results", made)
    assert (await client.get_subscription("results", "notifier")).dead_lettering_on_message_expiration
    assert [found.name async for found in client.list_queues()] == ["orders"]
    assert [found.name async for found in client.list_topics()] == ["images", "results"]
    assert [found.name async for found in client.list_subscriptions("results")] == ["notifier"]
    await client.delete_subscription("results", "notifier")
    await client.delete_topic("results")
    await client.delete_queue("orders")
    assert [found.name async for found in client.list_topics()] == ["images"]


async def test_rules_go_there_and_back(client: ServiceBusAdministrationClient) -> None:
    await client.create_rule("images", "detect", "a", filter=CorrelationRuleFilter(properties={"kind": "detect"}))
    rule = await client.create_rule("images", "detect", "b", filter=SqlRuleFilter("a = 1"))
    rule.filter = SqlRuleFilter("a = 2")
    await client.update_rule("images", "detect", rule)
    await client.delete_rule("images", "detect", "$Default")
    rules = {found.name: found.filter async for found in client.list_rules("images", "detect")}
    assert dict(rules["a"].properties) == {"kind": "detect"}
    assert rules["b"].sql_expression == "a = 2"
    assert (await client.get_rule("images", "detect", "a")).name == "a"


async def test_depth_counts_what_a_receiver_holds_locked(
    client: ServiceBusAdministrationClient, broker: BrokerThread
) -> None:
    with ServiceBusClient.from_connection_string(broker.connection_string) as data:
        with data.get_topic_sender("images") as sender:
            sender.send_messages([ServiceBusMessage(f"{index}") for index in range(3)])
        with data.get_subscription_receiver("images", "detect") as receiver:
            first, second = receiver.receive_messages(2, max_wait_time=5)
            receiver.complete_message(first)
            receiver.dead_letter_message(second, reason="Bad")
            (locked,) = receiver.receive_messages(1, max_wait_time=5)
            counts = await client.get_subscription_runtime_properties("images", "detect")
            assert (counts.active_message_count, counts.dead_letter_message_count) == (1, 1)
            receiver.complete_message(locked)
            counts = await client.get_subscription_runtime_properties("images", "detect")
            assert (counts.active_message_count, counts.total_message_count) == (0, 1)


async def test_errors_are_the_ones_the_sdk_knows(client: ServiceBusAdministrationClient, broker: BrokerThread) -> None:
    with pytest.raises(ResourceNotFoundError):
        await client.get_queue("nothing")
    with pytest.raises(ResourceExistsError):
        await client.create_queue("Images")
    wrong = broker.connection_string.replace("SharedAccessKey=", "SharedAccessKey=x")
    async with ServiceBusAdministrationClient.from_connection_string(
        wrong, connection_verify=str(broker.ca_path), retry_total=0
    ) as stranger:
        with pytest.raises(ClientAuthenticationError):
            await stranger.get_topic("images")

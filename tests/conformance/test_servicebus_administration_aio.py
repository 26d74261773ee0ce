"""The administration API through the unmodified asyncio SDK, over https."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.aio.management import ServiceBusAdministrationClient
from azure.servicebus.management import (
    AccessRights,
    AuthorizationRule,
    CorrelationRuleFilter,
    SqlRuleAction,
    SqlRuleFilter,
)

from fusebus.servicebus.broker import Broker, BrokerOptions
from fusebus.servicebus.engine import Message
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


async def test_every_setting_is_kept_and_given_back(client: ServiceBusAdministrationClient) -> None:
    rule = AuthorizationRule(
        type="SharedAccessAuthorizationRule", key_name="k", rights=[AccessRights.SEND], primary_key="p"
    )
    stored = {
        "default_message_time_to_live": timedelta(minutes=7),
        "auto_delete_on_idle": timedelta(minutes=20),
        "enable_batched_operations": False,
        "user_metadata": "kept",
        "max_size_in_megabytes": 2048,
        "requires_duplicate_detection": True,
        "duplicate_detection_history_time_window": timedelta(minutes=3),
    }
    received = {
        "lock_duration": timedelta(seconds=30),
        "max_delivery_count": 2000,
        "dead_lettering_on_message_expiration": True,
        "requires_session": True,
    }
    queue = await client.create_queue("all", authorization_rules=[rule], **stored, **received)
    topic = await client.create_topic("all-topic", authorization_rules=[rule], **stored)
    subscription = await client.create_subscription(
        "all-topic",
        "all",
        dead_lettering_on_filter_evaluation_exceptions=False,
        forward_dead_lettered_messages_to="images",
        **received,
    )
    await client.update_queue(queue)
    await client.update_topic(topic)
    await client.update_subscription("all-topic", subscription)
    queue, topic = await client.get_queue("all"), await client.get_topic("all-topic")
    subscription = await client.get_subscription("all-topic", "all")
    for entity, wanted in ((queue, stored), (queue, received), (topic, stored), (subscription, received)):
        assert {name: getattr(entity, name) for name in wanted} == wanted
    assert [given.key_name for given in (*queue.authorization_rules, *topic.authorization_rules)] == ["k", "k"]
    assert subscription.forward_dead_lettered_messages_to.endswith("/images")
    assert not subscription.dead_lettering_on_filter_evaluation_exceptions


async def test_lists_come_in_pages_with_and_without_counts(client: ServiceBusAdministrationClient) -> None:
    names = [f"q{index:03}" for index in range(105)]
    for name in names:
        await client.create_queue(name)
    assert [found.name async for found in client.list_queues(max_page_size=20)] == names
    assert [found.name async for found in client.list_queues_runtime_properties()] == names
    assert [found.name async for found in client.list_topics_runtime_properties()] == ["images"]
    assert [found.name async for found in client.list_subscriptions_runtime_properties("images")] == ["detect"]


async def test_expressions_parameters_and_actions_go_there_and_back(client: ServiceBusAdministrationClient) -> None:
    await client.create_rule(
        "images",
        "detect",
        "r",
        filter=SqlRuleFilter("kind LIKE @p", {"@p": "d%"}),
        action=SqlRuleAction("SET seen = @n", {"@n": 1}),
    )
    rules = {found.name: found async for found in client.list_rules("images", "detect")}
    assert dict(rules["r"].filter.parameters) == {"@p": "d%"}
    assert (rules["r"].action.sql_expression, dict(rules["r"].action.parameters)) == ("SET seen = @n", {"@n": 1})


async def test_a_refusal_names_what_is_wrong(client: ServiceBusAdministrationClient) -> None:
    for wrong, detail in (
        (client.create_queue("x", lock_duration=timedelta(minutes=6)), "LockDuration"),
        (client.create_queue("x", auto_delete_on_idle=timedelta(minutes=1)), "AutoDeleteOnIdle"),
        (client.create_topic("x", user_metadata="x" * 1025), "UserMetadata"),
        (client.create_subscription("images", "x", forward_to="nothing"), "ForwardTo"),
        (client.create_rule("images", "detect", "x", filter=SqlRuleFilter("a = ")), "at position 5"),
    ):
        with pytest.raises(HttpResponseError, match=detail) as refusal:
            await wrong
        assert refusal.value.status_code == 400


async def test_the_namespace_says_its_tier(client: ServiceBusAdministrationClient) -> None:
    assert (await client.get_namespace_properties()).messaging_sku == "Standard"


async def test_an_idle_queue_is_gone_in_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    later = 0.0  # seconds
    options = BrokerOptions(ca_directory=tmp_path_factory.getbasetemp() / "broker-authority")
    async with (
        Broker(options, clock=lambda: time.time() + later) as broker,
        ServiceBusAdministrationClient.from_connection_string(
            broker.connection_string, connection_verify=str(broker.ca_path), retry_total=0
        ) as client,
    ):
        for name in ("unused", "used"):
            await client.create_queue(name, auto_delete_on_idle=timedelta(minutes=5))
        later = 200
        broker.engine.send("used", [Message(b"x")])
        later = 310
        assert [found.name async for found in client.list_queues()] == ["used"]
        later = 1000
        with pytest.raises(ResourceNotFoundError):
            await client.get_queue("used")

"""Every method of the administration client, with threads and with asyncio alike, and what changes bring about."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import MessagingEntityDisabledError
from azure.servicebus.management import CorrelationRuleFilter, FalseRuleFilter, SqlRuleFilter, TrueRuleFilter
from either_client import ADMINISTRATIONS, done, every

from fusebus.servicebus.engine import Delivery, Engine, Message
from fusebus.servicebus.testing import BrokerThread

PAGE = 3
SECOND = timedelta(seconds=1)


class Calls:
    """An administration client that remembers which of its methods were called."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.names: set[str] = {"from_connection_string", "close"}  # by the fixture

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self._client, name)


@pytest.fixture(params=ADMINISTRATIONS)
async def client(broker: BrokerThread, request: pytest.FixtureRequest) -> AsyncIterator[Calls]:
    made = ADMINISTRATIONS[request.param].from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path), retry_total=0
    )
    yield Calls(made)
    await done(made.close())


def names(found: list[Any]) -> list[str]:
    return [entity.name for entity in found]


async def test_every_method_works(client: Calls) -> None:
    await _entities(client)
    await _subscriptions(client)
    await _rules(client)
    for delete in (client.delete_topic("t0"), client.delete_queue("q0")):
        await done(delete)
    assert "t0" not in names(await every(client.list_topics()))
    assert (await done(client.get_namespace_properties())).messaging_sku == "Standard"
    public = {
        name for name in dir(client._client) if not name.startswith("_") and callable(getattr(client._client, name))
    }
    assert public - client.names == set()


async def _entities(client: Calls) -> None:
    for kind in ("queue", "topic"):
        create, get, update = (getattr(client, f"{verb}_{kind}") for verb in ("create", "get", "update"))
        runtime = getattr(client, f"get_{kind}_runtime_properties")
        made = [f"{kind[0]}{number}" for number in range(2 * PAGE + 1)]
        for name in made:
            found = await done(create(name, user_metadata="first"))
        await done(update(found, user_metadata="second"))
        assert (await done(get(found.name))).user_metadata == "second"
        assert (await done(runtime(found.name))).size_in_bytes == 0
        for listing in (getattr(client, f"list_{kind}s"), getattr(client, f"list_{kind}s_runtime_properties")):
            assert names(await every(listing(max_page_size=PAGE))) == made  # the last page is not full
            assert names(await every(listing(start_index=2 * PAGE))) == made[2 * PAGE :]
            assert names(await every(listing(start_index=100))) == []
        with pytest.raises(ResourceExistsError):
            await done(create(made[0]))
        with pytest.raises(ResourceNotFoundError):
            await done(get("missing"))


async def _subscriptions(client: Calls) -> None:
    made = [f"s{number}" for number in range(2 * PAGE)]
    for name in made:
        found = await done(client.create_subscription("t0", name))
    await done(client.update_subscription("t0", found, max_delivery_count=3))
    assert (await done(client.get_subscription("t0", found.name))).max_delivery_count == 3
    assert (await done(client.get_subscription_runtime_properties("t0", found.name))).total_message_count == 0
    for listing in (client.list_subscriptions, client.list_subscriptions_runtime_properties):
        assert names(await every(listing("t0", max_page_size=PAGE))) == made  # the last page is full
    await done(client.delete_subscription("t0", made.pop()))
    assert names(await every(client.list_subscriptions("t0"))) == made


async def _rules(client: Calls) -> None:
    filters = [TrueRuleFilter(), FalseRuleFilter(), SqlRuleFilter("a = 1"), CorrelationRuleFilter(label="l")]
    for number, condition in enumerate(filters):
        rule = await done(client.create_rule("t0", "s0", f"r{number}", filter=condition))
    rule.filter = SqlRuleFilter("a = 2")
    await done(client.update_rule("t0", "s0", rule))
    assert (await done(client.get_rule("t0", "s0", rule.name))).filter.sql_expression == "a = 2"
    found = names(await every(client.list_rules("t0", "s0", max_page_size=2)))
    assert sorted(found) == ["$Default", "r0", "r1", "r2", "r3"]
    await done(client.delete_rule("t0", "s0", "r3"))
    with pytest.raises(ResourceNotFoundError):
        await done(client.get_rule("t0", "s0", "r3"))
    rule.filter = SqlRuleFilter("a = ")
    rule.name = "r2"
    with pytest.raises(HttpResponseError, match="at position 5") as refusal:
        await done(client.update_rule("t0", "s0", rule))
    assert refusal.value.status_code == 400


# What is changed holds from then on


def send(engine: Engine, **fields: Any) -> list[int]:
    return engine.send("q", [Message(b"x" * 100, **fields)])


def take(engine: Engine) -> Delivery:
    (delivery,) = engine.receive("q", 1)
    return delivery


def locked_for(engine: Engine) -> Any:
    send(engine)
    delivery = take(engine)
    assert delivery.locked_until is not None
    return round(delivery.locked_until - engine.now)


def lives_for(engine: Engine) -> Any:
    send(engine)
    delivery = take(engine)
    return round(delivery.expires_at - delivery.enqueued_at)


def gives_up(engine: Engine) -> Any:
    send(engine)
    token = take(engine).lock_token
    assert token is not None
    engine.abandon("q", token)
    return engine.counts("q").dead_letter


def buries_the_expired(engine: Engine) -> Any:
    send(engine, ttl_seconds=1e-6)
    engine.tick()
    return engine.counts("q").dead_letter


def forwards(engine: Engine) -> Any:
    send(engine)
    return engine.counts("other").active


def forwards_the_dead(engine: Engine) -> Any:
    send(engine)
    token = take(engine).lock_token
    assert token is not None
    engine.dead_letter("q", token)
    return engine.counts("other").active


def refuses(engine: Engine) -> Any:
    try:
        send(engine)
    except Exception as error:
        return type(error).__name__
    return None


HONOURED: dict[str, tuple[dict[str, Any], Callable[[Engine], Any], Any]] = {
    "lock duration": ({"lock_duration": 5 * SECOND}, locked_for, 5),
    "time to live": ({"default_message_time_to_live": 60 * SECOND}, lives_for, 60),
    "deliveries": ({"max_delivery_count": 1}, gives_up, 1),
    "expired ones": ({"dead_lettering_on_message_expiration": True}, buries_the_expired, 1),
    "forwarding": ({"forward_to": "other"}, forwards, 1),
    "forwarding of dead letters": ({"forward_dead_lettered_messages_to": "other"}, forwards_the_dead, 1),
    "status": ({"status": "SendDisabled"}, refuses, "EntityDisabled"),
    "no change": ({}, refuses, None),
}


@pytest.mark.parametrize("client", ["threads"], indirect=True)
@pytest.mark.parametrize("change", HONOURED)
async def test_a_change_holds_at_once(client: Calls, broker: BrokerThread, change: str) -> None:
    settings, seen, expected = HONOURED[change]
    engine = broker.broker.engine
    client.create_queue("other")
    made = client.create_queue("q", requires_duplicate_detection=False)
    for name, value in settings.items():
        setattr(made, name, value)
    client.update_queue(made)
    assert broker.call(lambda: seen(engine)) == expected


@pytest.mark.parametrize("client", ["threads"], indirect=True)
@pytest.mark.parametrize(
    ("status", "sends", "receives"), [("SendDisabled", False, True), ("Disabled", False, False), ("Active", True, True)]
)
async def test_topics_and_subscriptions_are_closed_like_queues(
    client: Calls, broker: BrokerThread, status: str, sends: bool, receives: bool
) -> None:
    topic = client.create_topic("t")
    subscription = client.create_subscription("t", "s")
    topic.status = status
    subscription.status = "Active" if receives else "ReceiveDisabled"
    client.update_topic(topic)
    client.update_subscription("t", subscription)
    assert client.get_topic("t").status == status
    with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as data:
        assert works(data.get_topic_sender("t"), "send_messages", ServiceBusMessage("x")) == sends
        assert works(data.get_subscription_receiver("t", "s", max_wait_time=0.3), "receive_messages", 1) == receives


def works(handler: Any, method: str, *arguments: Any) -> bool:
    try:
        with handler:
            getattr(handler, method)(*arguments)
    except MessagingEntityDisabledError:
        return False
    return True

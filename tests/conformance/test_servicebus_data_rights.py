"""Rights of keys and tokens: what each may do, and what becomes of open links when tokens end or are renewed."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from amqp_client import Client, dialled, put_token
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusAuthenticationError, ServiceBusAuthorizationError, ServiceBusError

from fusebus.servicebus import sas
from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.performatives import Detach, Disposition, Transfer
from fusebus.servicebus.amqp.types import Array, Int, Long
from fusebus.servicebus.broker import KEY_NAME, Broker, BrokerOptions
from fusebus.servicebus.engine import QueueSettings
from fusebus.servicebus.engine.rights import AuthorizationRule, Right

WAIT_SECONDS = 2.0
REFUSED = (ServiceBusAuthenticationError, ServiceBusAuthorizationError)


def rule(name: str, *rights: Right) -> AuthorizationRule:
    return AuthorizationRule(name, frozenset(rights), f"{name}-primary", f"{name}-secondary")


RULES = (rule("sender", Right.SEND), rule("listener", Right.LISTEN), rule("manager", Right.MANAGE))


@pytest.fixture
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    directory: Path = tmp_path_factory.getbasetemp() / "broker-authority"
    async with Broker(BrokerOptions(ca_directory=directory, key="key")) as broker:
        broker.engine.namespace.create_queue("work", QueueSettings(authorization_rules=RULES))
        broker.engine.namespace.create_queue("other")
        yield broker


def client_with(broker: Broker, name: str, key: str | None = None) -> ServiceBusClient:
    credential = AzureNamedKeyCredential(name, key or f"{name}-primary")
    return ServiceBusClient(f"127.0.0.1:{broker.port}", credential, use_tls=False, retry_total=0)


async def may_send(client: ServiceBusClient, queue: str = "work") -> bool:
    try:
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage("a"))
    except REFUSED:
        return False
    return True


async def may_receive(client: ServiceBusClient, queue: str = "work") -> bool:
    try:
        async with client.get_queue_receiver(queue) as receiver:
            await receiver.receive_messages(max_wait_time=0.3)
    except REFUSED:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "sends", "receives"), [("sender", True, False), ("listener", False, True), ("manager", True, True)]
)
async def test_a_key_allows_what_its_rule_says_and_only_on_its_entity(
    broker: Broker, name: str, sends: bool, receives: bool
) -> None:
    async with client_with(broker, name) as client:
        assert await may_send(client) == sends
        assert await may_receive(client) == receives
        assert not await may_send(client, "other")


async def test_a_secondary_key_is_as_good_and_a_wrong_one_is_not(broker: Broker) -> None:
    async with client_with(broker, "sender", "sender-secondary") as client:
        assert await may_send(client)
    async with client_with(broker, "sender", "guess") as client:
        assert not await may_send(client)


async def test_management_asks_for_the_right_of_each_operation(broker: Broker) -> None:
    async with dialled(broker) as client:
        await client.handshake(None)
        await open_claims(client)
        await put(client, expires_in=60, name="sender")
        await client.receiver("work/$management", handle=2)
        await client.sender("work/$management", handle=3)
        client.credit(10, handle=2)
        status = await manage(client, "cancel-scheduled-message", {"sequence-numbers": Array([Long(9)])})
        assert status == 404
        assert await manage(client, "peek-message", {"from-sequence-number": Long(1), "message-count": Int(1)}) == 401


async def manage(client: Client, operation: str, body: dict[str, Any]) -> int:
    request = sections.message(["id"], {"operation": f"com.microsoft:{operation}"}, body)
    client.send(Transfer(handle=3, delivery_id=0, delivery_tag=b"1", settled=True), payload=request)
    _, payload = await client.message()
    return int(sections.parse_message(payload).application_properties["statusCode"])


async def open_claims(client: Client) -> None:
    await client.receiver("$cbs")
    await client.sender("$cbs", handle=1)
    client.credit(100)


async def put(client: Client, expires_in: float, name: str = KEY_NAME, key: str | None = None) -> None:
    key = key or ("key" if name == KEY_NAME else f"{name}-primary")
    token = sas.make_token("sb://x/work", name, key, int(time.time() + expires_in))
    assert (await put_token(client, "sb://x/work", token))["status-code"] == 202


async def test_links_are_detached_when_their_token_has_expired(broker: Broker) -> None:
    async with dialled(broker) as client:
        await client.handshake(None)
        await open_claims(client)
        await put(client, expires_in=2)
        assert (await client.receiver("work", handle=2)).source is not None
        assert (await client.sender("work", handle=3)).target is not None
        for handle in (2, 3):
            detach = await client.expect(Detach)
            assert (detach.handle, detach.closed) == (handle, True)
            assert detach.error.condition == "amqp:unauthorized-access"
            assert "ExpiredToken" in detach.error.description
        assert (await client.receiver("work", handle=4)).source is None
        assert (await client.expect(Detach)).error.condition == "amqp:unauthorized-access"
        await put(client, expires_in=60)
        assert (await client.receiver("work", handle=5)).source is not None


async def test_a_token_that_is_renewed_in_time_keeps_its_links(broker: Broker) -> None:
    async with dialled(broker) as client:
        await client.handshake(None)
        await open_claims(client)
        await put(client, expires_in=2)
        assert (await client.sender("work", handle=3)).target is not None
        await put(client, expires_in=60)
        deadline = time.time() + 2.2
        while time.time() < deadline:
            await client.quiet()
        body = b"\x00\x53\x75\xa0\x01a"
        client.send(Transfer(handle=3, delivery_id=0, delivery_tag=b"t"), payload=body)
        assert (await client.expect(Disposition)).settled


async def test_the_sdk_is_told_that_its_token_has_expired(broker: Broker) -> None:
    token = sas.make_token(f"sb://127.0.0.1:{broker.port}/work", KEY_NAME, "key", int(time.time() + 4))
    async with (
        ServiceBusClient(f"127.0.0.1:{broker.port}", AzureSasCredential(token), use_tls=False, retry_total=0) as client,
        client.get_queue_receiver("work") as receiver,
    ):
        assert await receiver.receive_messages(max_wait_time=0.2) == []
        with pytest.raises(ServiceBusError):
            await receiver.receive_messages(max_wait_time=20)

"""Keys of entities: made through the SDK, and what each lets a client do over HTTP and AMQP."""

from collections.abc import Callable, Iterator

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import ServiceBusAuthenticationError, ServiceBusAuthorizationError, ServiceBusError
from azure.servicebus.management import AccessRights, AuthorizationRule, ServiceBusAdministrationClient

from fusebus.servicebus import sas
from fusebus.servicebus.testing import BrokerThread

TOPOLOGY = {
    "queues": [{"name": "orders"}, {"name": "other"}],
    "topics": [{"name": "images", "subscriptions": [{"name": "detect"}]}],
}
KEY, SECOND = "a2V5", "c2Vjb25k"
FAR = 4_000_000_000  # seconds since the epoch
REFUSED = (ServiceBusAuthenticationError, ServiceBusAuthorizationError)


def rule(name: str, *rights: AccessRights) -> AuthorizationRule:
    return AuthorizationRule(
        type="SharedAccessAuthorizationRule", key_name=name, rights=list(rights), primary_key=KEY, secondary_key=SECOND
    )


@pytest.fixture
def client(broker: BrokerThread) -> Iterator[ServiceBusAdministrationClient]:
    with administration(broker, broker.connection_string) as client:
        yield client


def administration(broker: BrokerThread, connection_string: str) -> ServiceBusAdministrationClient:
    return ServiceBusAdministrationClient.from_connection_string(
        connection_string, connection_verify=str(broker.ca_path), retry_total=0
    )


def connection_string(broker: BrokerThread, name: str, key: str = KEY) -> str:
    parts = broker.connection_string.split(";")
    return ";".join((parts[0], f"SharedAccessKeyName={name}", f"SharedAccessKey={key}", parts[-1]))


def give(client: ServiceBusAdministrationClient, queue: str, *rules: AuthorizationRule) -> None:
    found = client.get_queue(queue)
    found.authorization_rules = list(rules)
    client.update_queue(found)


def test_rules_are_kept_and_given_back(client: ServiceBusAdministrationClient) -> None:
    rules = [rule("send", AccessRights.SEND), rule("all", AccessRights.MANAGE, AccessRights.SEND, AccessRights.LISTEN)]
    client.create_queue("new", authorization_rules=rules)
    client.create_topic("new-topic", authorization_rules=rules)
    for found in (client.get_queue("new"), client.get_topic("new-topic")):
        assert [
            (given.key_name, set(given.rights), given.primary_key, given.secondary_key)
            for given in found.authorization_rules
        ] == [("send", {"Send"}, KEY, SECOND), ("all", {"Send", "Listen", "Manage"}, KEY, SECOND)]
    found = client.get_queue("new")
    found.authorization_rules.pop()
    client.update_queue(found)
    assert [given.key_name for given in client.get_queue("new").authorization_rules] == ["send"]


def test_keys_that_are_not_given_are_made(client: ServiceBusAdministrationClient) -> None:
    given = AuthorizationRule(type="SharedAccessAuthorizationRule", key_name="k", rights=[AccessRights.LISTEN])
    (made,) = client.create_queue("new", authorization_rules=[given]).authorization_rules
    assert len(made.primary_key) == len(made.secondary_key) == 44
    assert made.primary_key != made.secondary_key


@pytest.mark.parametrize(
    ("rules", "detail"),
    [
        ([rule("x")], "Rights of 'x' are missing"),
        ([rule("", AccessRights.SEND)], "KeyName"),
        ([rule("x", AccessRights.MANAGE)], "Manage includes Send and Listen"),
        ([rule("x", AccessRights.SEND), rule("x", AccessRights.LISTEN)], "KeyName occurs twice"),
        ([rule(f"r{index}", AccessRights.SEND) for index in range(13)], "more than 12"),
    ],
)
def test_wrong_rules_are_refused(
    client: ServiceBusAdministrationClient, rules: list[AuthorizationRule], detail: str
) -> None:
    with pytest.raises(HttpResponseError, match=f"AuthorizationRules: .*{detail}") as refusal:
        client.create_queue("new", authorization_rules=rules)
    assert refusal.value.status_code == 400


def send(data: ServiceBusClient, queue: str) -> None:
    with data.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("x"))


def receive(data: ServiceBusClient, queue: str) -> None:
    with data.get_queue_receiver(queue, max_wait_time=0.5) as receiver:
        receiver.receive_messages(1)


@pytest.mark.parametrize(
    ("right", "key", "allowed", "refused"),
    [(AccessRights.SEND, KEY, send, receive), (AccessRights.LISTEN, SECOND, receive, send)],
)
def test_a_key_opens_its_direction_of_its_entity(
    client: ServiceBusAdministrationClient,
    broker: BrokerThread,
    right: AccessRights,
    key: str,
    allowed: Callable[[ServiceBusClient, str], None],
    refused: Callable[[ServiceBusClient, str], None],
) -> None:
    give(client, "orders", rule("k", right))
    with ServiceBusClient.from_connection_string(connection_string(broker, "k", key), retry_total=0) as data:
        allowed(data, "orders")
        for action, queue in ((refused, "orders"), (allowed, "other")):
            with pytest.raises(REFUSED):
                action(data, queue)


def test_a_key_opens_nothing_when_its_rule_is_gone(
    client: ServiceBusAdministrationClient, broker: BrokerThread
) -> None:
    give(client, "orders", rule("k", AccessRights.SEND))
    give(client, "orders")
    data = ServiceBusClient.from_connection_string(connection_string(broker, "k"), retry_total=0)
    with data, pytest.raises(ServiceBusError):
        send(data, "orders")


def test_only_the_namespaces_key_administers_the_namespace(
    client: ServiceBusAdministrationClient, broker: BrokerThread
) -> None:
    give(client, "orders", rule("k", AccessRights.SEND, AccessRights.LISTEN, AccessRights.MANAGE))
    with administration(broker, connection_string(broker, "k")) as limited:
        for action in (
            lambda: limited.get_queue("orders"),  # the SDK's tokens are for the whole namespace
            lambda: list(limited.list_queues()),
            lambda: limited.create_queue("new"),
            limited.get_namespace_properties,
        ):
            with pytest.raises(ClientAuthenticationError):
                action()
    with pytest.raises(ResourceNotFoundError):
        client.get_queue("new")


@pytest.mark.parametrize(
    ("method", "path", "right", "token_for", "status"),
    [
        ("GET", "/orders", AccessRights.MANAGE, "orders", 200),
        ("DELETE", "/orders", AccessRights.MANAGE, "orders", 200),
        ("GET", "/orders", AccessRights.LISTEN, "orders", 401),
        ("GET", "/other", AccessRights.MANAGE, "orders", 401),
        ("GET", "/$Resources/queues", AccessRights.MANAGE, "orders", 401),
        ("GET", "/nothing", AccessRights.MANAGE, "orders", 401),
    ],
)
def test_a_token_for_one_entity_administers_that_one(
    client: ServiceBusAdministrationClient,
    broker: BrokerThread,
    method: str,
    path: str,
    right: AccessRights,
    token_for: str,
    status: int,
) -> None:
    rights = {right} | ({AccessRights.SEND, AccessRights.LISTEN} if right == AccessRights.MANAGE else set())
    give(client, "orders", rule("k", *rights))
    token = sas.make_token(f"https://localhost/{token_for}", "k", KEY, FAR)
    answer = requests.request(
        method, f"http://localhost:{broker.port}{path}", headers={"Authorization": token}, timeout=5
    )
    assert answer.status_code == status


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "Bearer a.b.c",
        "SharedAccessSignature sr=x",
        sas.make_token("https://localhost", "RootManageSharedAccessKey", "wrong", FAR),
    ],
)
def test_what_is_no_valid_token_is_refused(broker: BrokerThread, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": token}
    answer = requests.get(f"http://localhost:{broker.port}/orders", headers=headers, timeout=5)
    assert answer.status_code == 401
    assert "<Error><Code>401</Code>" in answer.text


def test_an_expired_token_is_refused(broker: BrokerThread) -> None:
    token = sas.make_token("https://localhost", "RootManageSharedAccessKey", broker.broker.gateway.key, 1_000)
    url = f"http://localhost:{broker.port}/orders"
    assert requests.get(url, headers={"Authorization": token}, timeout=5).status_code == 401


def test_an_insecure_broker_accepts_any_token(start_broker: Callable[..., BrokerThread]) -> None:
    broker = start_broker(TOPOLOGY, insecure=True)
    with administration(broker, connection_string(broker, "nobody")) as client:
        assert client.get_queue("orders").name == "orders"
    assert requests.get(f"http://localhost:{broker.port}/orders", timeout=5).status_code == 200


def test_forwarding_needs_the_right_to_send_to_the_target(
    client: ServiceBusAdministrationClient, broker: BrokerThread
) -> None:
    rights = (AccessRights.SEND, AccessRights.LISTEN, AccessRights.MANAGE)
    give(client, "orders", rule("k", *rights))
    give(client, "other", rule("k", AccessRights.SEND))
    own, foreign = (sas.make_token(f"sb://localhost/{path}", "k", KEY, FAR) for path in ("orders", "other"))
    body = (
        '<entry xmlns="http://www.w3.org/2005/Atom"><content><QueueDescription '
        'xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect">'
        "<ForwardTo>sb://localhost/other</ForwardTo></QueueDescription></content></entry>"
    )
    url, headers = f"http://localhost:{broker.port}/orders", {"Authorization": own, "If-Match": "*"}
    refused = requests.put(url, data=body, headers=headers, timeout=5)
    assert refused.status_code == 401
    assert "ForwardTo" in refused.text
    headers["ServiceBusSupplementaryAuthorization"] = foreign
    assert requests.put(url, data=body, headers=headers, timeout=5).status_code == 200
    assert client.get_queue("orders").forward_to.endswith("/other")

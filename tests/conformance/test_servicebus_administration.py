"""The administration API through the unmodified SDK, synchronous, over https."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, ResourceExistsError, ResourceNotFoundError
from azure.servicebus.management import (
    CorrelationRuleFilter,
    FalseRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleFilter,
    TrueRuleFilter,
)

from fusebus.servicebus.engine import Delivery, Message
from fusebus.servicebus.testing import BrokerThread

TOPOLOGY = {
    "queues": [{"name": "orders", "lock_seconds": 30}],
    "topics": [{"name": "images", "subscriptions": [{"name": "detect"}]}],
}
FOREVER = timedelta(days=10_000_000)


@pytest.fixture
def client(broker: BrokerThread) -> Iterator[ServiceBusAdministrationClient]:
    with ServiceBusAdministrationClient.from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path), retry_total=0
    ) as client:
        yield client


def send(broker: BrokerThread, path: str, *raw: bytes, due: float | None = None) -> None:
    messages = [Message(body, scheduled_enqueue_time=due) for body in raw]
    broker.call(lambda: broker.broker.engine.send(path, messages))


def receive(broker: BrokerThread, path: str, count: int) -> list[Delivery]:
    return broker.call(lambda: broker.broker.engine.receive(path, count))


def test_a_queue_is_created_read_changed_and_deleted(client: ServiceBusAdministrationClient) -> None:
    made = client.create_queue(
        "eu/fast",
        lock_duration=timedelta(seconds=5),
        max_delivery_count=4,
        default_message_time_to_live=timedelta(hours=36, seconds=1.5),
        requires_duplicate_detection=True,
        duplicate_detection_history_time_window=timedelta(minutes=1),
        dead_lettering_on_message_expiration=True,
        user_metadata="<fast> & furious",
    )
    read = client.get_queue("EU/fast")
    for queue in (made, read):
        assert queue.lock_duration == timedelta(seconds=5)
        assert queue.max_delivery_count == 4
        assert queue.default_message_time_to_live == timedelta(hours=36, seconds=1.5)
        assert queue.requires_duplicate_detection
        assert queue.duplicate_detection_history_time_window == timedelta(minutes=1)
        assert queue.dead_lettering_on_message_expiration
        assert queue.user_metadata == "<fast> & furious"
    read.max_delivery_count = 9
    client.update_queue(read, lock_duration=timedelta(seconds=20))
    changed = client.get_queue("eu/fast")
    assert (changed.max_delivery_count, changed.lock_duration) == (9, timedelta(seconds=20))
    assert changed.default_message_time_to_live == timedelta(hours=36, seconds=1.5)
    client.delete_queue("eu/fast")
    with pytest.raises(ResourceNotFoundError):
        client.get_queue("eu/fast")


def test_defaults_are_the_services(client: ServiceBusAdministrationClient) -> None:
    queue = client.create_queue("plain")
    assert queue.lock_duration == timedelta(minutes=1)
    assert queue.max_delivery_count == 10
    assert queue.default_message_time_to_live > FOREVER
    assert queue.auto_delete_on_idle > FOREVER
    assert not queue.requires_duplicate_detection
    assert not queue.requires_session
    assert queue.status == "Active"
    topic = client.create_topic("plain-topic")
    assert topic.default_message_time_to_live > FOREVER
    client.update_queue(queue)  # what was read can be written back
    client.update_topic(topic)
    assert client.get_queue("plain").default_message_time_to_live > FOREVER


def test_runtime_counts_are_true_and_count_locked_messages_as_active(
    client: ServiceBusAdministrationClient, broker: BrokerThread
) -> None:
    send(broker, "orders", b"12345", b"1", b"1", b"1")
    send(broker, "orders", b"1", due=datetime.now(UTC).timestamp() + 600)
    _, dead, deferred = receive(broker, "orders", 3)
    engine = broker.broker.engine
    broker.call(lambda: engine.dead_letter("orders", dead.lock_token, "Bad"))
    broker.call(lambda: engine.defer("orders", deferred.lock_token))
    counts = client.get_queue_runtime_properties("orders")
    assert counts.active_message_count == 3  # ready, locked, deferred
    assert counts.dead_letter_message_count == 1
    assert counts.scheduled_message_count == 1
    assert counts.transfer_message_count == counts.transfer_dead_letter_message_count == 0
    assert counts.total_message_count == 5
    assert counts.size_in_bytes == 9
    assert counts.created_at_utc <= counts.accessed_at_utc <= datetime.now(UTC)


def test_a_subscriptions_counts_are_its_own_and_scheduled_messages_are_the_topics(
    client: ServiceBusAdministrationClient, broker: BrokerThread
) -> None:
    client.create_subscription("images", "other")
    send(broker, "images", b"1", b"2")
    send(broker, "images", b"3", due=datetime.now(UTC).timestamp() + 600)
    receive(broker, "images/subscriptions/detect", 1)
    done = receive(broker, "images/subscriptions/other", 1)[0].lock_token
    broker.call(lambda: broker.broker.engine.complete("images/subscriptions/other", done))
    assert client.get_subscription_runtime_properties("images", "detect").active_message_count == 2
    assert client.get_subscription_runtime_properties("images", "other").active_message_count == 1
    topic = client.get_topic_runtime_properties("images")
    assert (topic.scheduled_message_count, topic.subscription_count) == (1, 2)
    listed = {found.name: found.total_message_count for found in client.list_subscriptions_runtime_properties("images")}
    assert listed == {"detect": 2, "other": 1}


def test_long_lists_come_in_pages_and_in_order(client: ServiceBusAdministrationClient) -> None:
    names = [f"s{index:03}" for index in range(120)]
    for name in names:
        client.create_subscription("images", name)
    assert [found.name for found in client.list_subscriptions("images")] == ["detect", *names]
    assert [found.name for found in client.list_subscriptions("images", max_page_size=7)] == ["detect", *names]
    assert [found.name for found in client.list_subscriptions("images", start_index=119)] == names[118:]
    assert [found.name for found in client.list_queues()] == ["orders"]
    assert [found.name for found in client.list_topics_runtime_properties()] == ["images"]


def test_rules_of_every_kind_go_there_and_back(client: ServiceBusAdministrationClient) -> None:
    properties = {
        "text": "<a> & 'b'",
        "int": 3,
        "long": 2**40,
        "double": 1.5,
        "flag": True,
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "span": timedelta(minutes=3, seconds=1.5),
    }
    correlation = CorrelationRuleFilter(correlation_id="c", label="l", properties=properties)
    client.create_rule("images", "detect", "a", filter=correlation)
    client.create_rule("images", "detect", "b", filter=SqlRuleFilter("kind = 'x' AND size < 3"))
    client.create_rule("images", "detect", "c", filter=FalseRuleFilter())
    rules = {rule.name: rule.filter for rule in client.list_rules("images", "detect")}
    assert [type(found) for found in rules.values()] == [
        TrueRuleFilter,
        CorrelationRuleFilter,
        SqlRuleFilter,
        FalseRuleFilter,
    ]
    assert dict(rules["a"].properties) == properties
    assert (rules["a"].correlation_id, rules["a"].label, rules["a"].to) == ("c", "l", None)
    assert rules["b"].sql_expression == "kind = 'x' AND size < 3"


def test_rules_decide_from_their_change_on(client: ServiceBusAdministrationClient, broker: BrokerThread) -> None:
    client.delete_rule("images", "detect", "$Default")
    send(broker, "images", b"nobody")
    rule = client.create_rule("images", "detect", "r", filter=FalseRuleFilter())
    rule.filter = SqlRuleFilter("kind IS NULL")
    client.update_rule("images", "detect", rule)
    send(broker, "images", b"taken")
    (found,) = receive(broker, "images/subscriptions/detect", 9)
    assert found.message.raw == b"taken"
    assert client.get_rule("images", "detect", "r").created_at_utc == rule.created_at_utc


def test_a_disabled_queue_says_so(client: ServiceBusAdministrationClient) -> None:
    queue = client.get_queue("orders")
    queue.status = "SendDisabled"
    client.update_queue(queue)
    assert client.get_queue("orders").status == "SendDisabled"


def test_what_exists_cannot_be_created(client: ServiceBusAdministrationClient) -> None:
    for action in (
        lambda: client.create_queue("ORDERS"),
        lambda: client.create_topic("orders"),
        lambda: client.create_subscription("images", "Detect"),
        lambda: client.create_rule("images", "detect", "$default"),
    ):
        with pytest.raises(ResourceExistsError):
            action()


def test_what_does_not_exist_is_not_found(client: ServiceBusAdministrationClient) -> None:
    queue, topic = client.get_queue("orders"), client.get_topic("images")
    subscription = client.get_subscription("images", "detect")
    for found in (queue, topic, subscription):
        found.name = "nothing"
    for action in (
        lambda: client.get_topic("nothing"),
        lambda: client.get_subscription("images", "nothing"),
        lambda: client.get_rule("images", "detect", "nothing"),
        lambda: client.get_subscription_runtime_properties("nothing", "detect"),
        lambda: client.update_queue(queue),
        lambda: client.update_topic(topic),
        lambda: client.update_subscription("images", subscription),
        lambda: client.create_subscription("nothing", "x"),
        lambda: client.delete_queue("nothing"),
        lambda: client.delete_subscription("images", "nothing"),
        lambda: client.delete_rule("images", "detect", "nothing"),
        lambda: list(client.list_subscriptions("nothing")),
    ):
        with pytest.raises(ResourceNotFoundError):
            action()


def test_a_wrong_key_is_refused(broker: BrokerThread) -> None:
    wrong = broker.connection_string.replace("SharedAccessKey=", "SharedAccessKey=x")
    client = ServiceBusAdministrationClient.from_connection_string(
        wrong, connection_verify=str(broker.ca_path), retry_total=0
    )
    with client, pytest.raises(ClientAuthenticationError):
        client.get_queue("orders")


def test_the_namespace_says_its_tier(client: ServiceBusAdministrationClient) -> None:
    properties = client.get_namespace_properties()
    assert (properties.messaging_sku, properties.name) == ("Standard", "127.0.0.1")
    assert properties.created_at_utc <= datetime.now(UTC)


def test_entities_may_be_called_health(broker: BrokerThread, client: ServiceBusAdministrationClient) -> None:
    client.create_queue("health", max_delivery_count=4)
    queue = client.get_queue("health")
    queue.max_delivery_count = 5
    client.update_queue(queue)
    assert client.get_queue("health").max_delivery_count == 5
    assert requests.get(f"http://localhost:{broker.port}/health", timeout=5).json() == {"status": "ok"}
    client.delete_queue("health")
    with pytest.raises(ResourceNotFoundError):
        client.get_queue("health")
    client.create_topic("health")
    assert client.create_subscription("health", "health").name == "health"


def test_only_the_health_page_needs_no_token(broker: BrokerThread) -> None:
    assert requests.get(f"http://localhost:{broker.port}/orders", timeout=5).status_code == 401
    address = f"http://localhost:{broker.port}/health"
    assert requests.get(address, timeout=5).json() == {"status": "ok"}
    assert requests.head(address, timeout=5).status_code == 200
    assert requests.get(f"{address}?api-version=2021-05", timeout=5).status_code == 401
    assert requests.delete(address, timeout=5).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("PUT", "/new", "", {}, 400),
        ("PUT", "/new", "<a", {}, 400),
        ("PUT", "/new", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', {}, 400),
        ("PUT", "/new", "<a/>", {}, 400),
        ("PUT", "/new", "x" * 300_000, {}, 413),
        ("PUT", "/orders", "{queue}", {"If-Match": '"0"'}, 412),
        ("PUT", "/orders", "{queue}", {"If-Match": "*"}, 200),
        ("PUT", "/images/subscriptions/new", "{queue}", {}, 400),
        ("POST", "/orders", "", {}, 405),
        ("DELETE", "/$Resources/queues", "", {}, 405),
        ("GET", "/$Resources/other", "", {}, 404),
        ("GET", "/$Resources/queues?$skip=x", "", {}, 400),
        ("GET", "/images/subscriptions/detect/other", "", {}, 404),
        ("GET", "/images/subscriptions/detect/$DeadLetterQueue", "", {}, 404),
        ("GET", "/orders/$DeadLetterQueue", "", {}, 404),
        ("GET", "/", "", {}, 404),
    ],
)
def test_a_request_that_makes_no_sense_gets_its_status_and_an_error_document(
    start_broker, method: str, path: str, body: str, headers: dict[str, str], status: int
) -> None:
    broker = start_broker(TOPOLOGY, insecure=True)
    queue = (
        '<entry xmlns="http://www.w3.org/2005/Atom"><content><QueueDescription '
        'xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"/></content></entry>'
    )
    url = f"http://localhost:{broker.port}{path}"
    answer = requests.request(method, url, data=body.replace("{queue}", queue), headers=headers, timeout=5)
    assert answer.status_code == status
    if status >= 400:
        assert answer.headers["Content-Type"].startswith("application/xml")
        assert f"<Error><Code>{status}</Code><Detail>" in answer.text

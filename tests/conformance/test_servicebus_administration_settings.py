"""Every setting of every entity through the unmodified SDK: kept, given back, honoured, or refused by its name."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import MessagingEntityDisabledError
from azure.servicebus.management import ServiceBusAdministrationClient

from fusebus.servicebus.engine import Message
from fusebus.servicebus.testing import BrokerThread
from fusebus.servicebus.tier import Tier

TOPOLOGY = {
    "queues": [{"name": "orders", "lock_seconds": 30}],
    "topics": [{"name": "images", "subscriptions": [{"name": "detect"}]}],
}
FOREVER = timedelta(days=10_000_000)
MINUTES = timedelta(minutes=1)
TWENTY = 20 * MINUTES

SHARED = {
    "default_message_time_to_live": 7 * MINUTES,
    "auto_delete_on_idle": TWENTY,
    "enable_batched_operations": False,
    "user_metadata": " <kept> & 'as is' ",
}
RECEIVED = {
    "lock_duration": 0.5 * MINUTES,
    "max_delivery_count": 2000,
    "dead_lettering_on_message_expiration": True,
    "requires_session": True,
}
STORED = {
    "max_size_in_megabytes": 2048,
    "requires_duplicate_detection": True,
    "duplicate_detection_history_time_window": 3 * MINUTES,
    "enable_partitioning": True,
}
QUEUE = {**SHARED, **RECEIVED, **STORED}
TOPIC = {**SHARED, **STORED, "support_ordering": False}  # the SDK keeps filtering_messages_before_publishing to itself
SUBSCRIPTION = {**SHARED, **RECEIVED, "dead_lettering_on_filter_evaluation_exceptions": False}
FIXED = {"requires_session", "requires_duplicate_detection", "enable_partitioning"}


@pytest.fixture
def client(broker: BrokerThread) -> Iterator[ServiceBusAdministrationClient]:
    with administration(broker) as client:
        yield client


def administration(broker: BrokerThread) -> ServiceBusAdministrationClient:
    return ServiceBusAdministrationClient.from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path), retry_total=0
    )


def values(entity: Any, names: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in names}


Calls = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]


@pytest.fixture(params=["queue", "topic", "subscription"])
def kind(request: pytest.FixtureRequest, client: ServiceBusAdministrationClient) -> tuple[Calls, dict[str, Any]]:
    """(create, get, update), and a value other than the default for every setting."""
    if request.param == "queue":
        calls = client.create_queue, client.get_queue, client.update_queue
        return calls, QUEUE
    if request.param == "topic":
        return (client.create_topic, client.get_topic, client.update_topic), TOPIC
    return (
        lambda name, **settings: client.create_subscription("images", name, **settings),
        lambda name: client.get_subscription("images", name),
        lambda found, **settings: client.update_subscription("images", found, **settings),
    ), SUBSCRIPTION


def test_every_setting_is_kept_and_given_back(kind: tuple[Calls, dict[str, Any]]) -> None:
    (create, get, update), wanted = kind
    assert values(create("new", **wanted), wanted) == wanted
    found = get("new")
    assert values(found, wanted) == wanted
    update(found)
    assert values(get("new"), wanted) == wanted


def test_every_setting_that_may_change_changes(kind: tuple[Calls, dict[str, Any]]) -> None:
    (create, get, update), wanted = kind
    plain = create("new")
    changing = {name: value for name, value in wanted.items() if name not in FIXED}
    if "enable_partitioning" in wanted:
        changing["enable_express"] = True  # not together with the detection of duplicates
    for name, value in changing.items():
        setattr(plain, name, value)
    update(plain)
    assert values(get("new"), changing) == changing
    found = get("new")
    found.user_metadata = None
    update(found)
    assert get("new").user_metadata is None


def test_what_is_chosen_at_creation_cannot_change(kind: tuple[Calls, dict[str, Any]]) -> None:
    (create, get, update), wanted = kind
    create("new")
    names = {
        "requires_session": "RequiresSession",
        "requires_duplicate_detection": "RequiresDuplicateDetection",
        "enable_partitioning": "EnablePartitioning",
    }
    for name in FIXED & set(wanted):
        found = get("new")
        setattr(found, name, True)
        with pytest.raises(HttpResponseError, match=names[name]) as refusal:
            update(found)
        assert refusal.value.status_code == 400


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"lock_duration": 6 * MINUTES}, "LockDuration: must be above 0 and at most 300 s"),
        ({"lock_duration": timedelta(0)}, "LockDuration"),
        ({"default_message_time_to_live": timedelta(0)}, "DefaultMessageTimeToLive"),
        ({"auto_delete_on_idle": 4 * MINUTES}, "AutoDeleteOnIdle: PT4M is less than five minutes"),
        ({"max_delivery_count": 0}, "MaxDeliveryCount: 0 is not between 1 and 2000"),
        ({"max_delivery_count": 2001}, "MaxDeliveryCount"),
        ({"max_size_in_megabytes": 1000}, "MaxSizeInMegabytes: 1000 is not a multiple of 1024"),
        ({"max_size_in_megabytes": 6144}, "MaxSizeInMegabytes"),
        ({"max_message_size_in_kilobytes": 2048}, "MaxMessageSizeInKilobytes: the Standard tier allows 256 to 256"),
        (
            {"requires_duplicate_detection": True, "duplicate_detection_history_time_window": timedelta(days=8)},
            "DuplicateDetectionHistoryTimeWindow",
        ),
        ({"user_metadata": "x" * 1025}, "UserMetadata: longer than 1024"),
        ({"forward_to": "nothing"}, "ForwardTo"),
        ({"forward_to": "new"}, "ForwardTo"),
        ({"forward_dead_lettered_messages_to": "nothing"}, "ForwardDeadLetteredMessagesTo"),
        ({"enable_express": True, "requires_duplicate_detection": True}, "EnableExpress: not together with"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(
    client: ServiceBusAdministrationClient, settings: dict[str, Any], detail: str
) -> None:
    with pytest.raises(HttpResponseError, match=detail) as refusal:
        client.create_queue("new", **settings)
    assert refusal.value.status_code == 400
    assert [queue.name for queue in client.list_queues()] == ["orders"]


def test_a_window_is_kept_without_the_detection_of_duplicates(client: ServiceBusAdministrationClient) -> None:
    made = client.create_queue("txt/.-_123", duplicate_detection_history_time_window="PT12M3S")
    assert made.duplicate_detection_history_time_window == timedelta(minutes=12, seconds=3)
    assert not made.requires_duplicate_detection
    client.update_queue(made, duplicate_detection_history_time_window=timedelta(minutes=17), enable_express=True)
    found = client.get_queue("txt/.-_123")
    assert (found.duplicate_detection_history_time_window, found.enable_express) == (17 * MINUTES, True)


@pytest.mark.parametrize("name", ["bad name", "-x", "x" * 261, "a//b", "ü"])
def test_a_wrong_name_is_refused(client: ServiceBusAdministrationClient, name: str) -> None:
    with pytest.raises(HttpResponseError, match="is not a name") as refusal:
        client.create_queue(name)
    assert refusal.value.status_code == 400


def test_forwarding_is_told_as_addresses_and_can_be_ended(client: ServiceBusAdministrationClient) -> None:
    made = client.create_queue("in", forward_to="orders", forward_dead_lettered_messages_to="images")
    assert made.forward_to.startswith("sb://")
    assert made.forward_to.endswith("/orders")
    assert made.forward_dead_lettered_messages_to.endswith("/images")
    client.update_queue(made)
    assert client.get_queue("in").forward_to == made.forward_to
    made.forward_to = None
    client.update_queue(made)
    found = client.get_queue("in")
    assert (found.forward_to, found.forward_dead_lettered_messages_to) == (None, made.forward_dead_lettered_messages_to)


def test_sessions_and_forwarding_go_together(client: ServiceBusAdministrationClient, broker: BrokerThread) -> None:
    client.create_queue("in", forward_to="orders", requires_session=True)
    broker.call(lambda: broker.broker.engine.send("in", [Message(b"1", session_id="s")]))
    assert client.get_queue_runtime_properties("orders").active_message_count == 1


def test_a_loop_of_forwards_is_refused(client: ServiceBusAdministrationClient) -> None:
    client.create_queue("second", forward_to="orders")
    orders = client.get_queue("orders")
    orders.forward_to = "second"
    with pytest.raises(HttpResponseError, match="ForwardTo"):
        client.update_queue(orders)


def test_what_is_sent_to_a_forwarding_queue_arrives_elsewhere(
    client: ServiceBusAdministrationClient, broker: BrokerThread
) -> None:
    client.create_queue("in", forward_to="orders")
    client.create_subscription("images", "copy", forward_to="orders")
    engine = broker.broker.engine
    broker.call(lambda: engine.send("in", [Message(b"1")]))
    broker.call(lambda: engine.send("images", [Message(b"2")]))
    assert client.get_queue_runtime_properties("orders").active_message_count == 2
    assert client.get_queue_runtime_properties("in").total_message_count == 0


@pytest.mark.parametrize(
    ("status", "sends", "receives"),
    [
        ("Active", True, True),
        ("SendDisabled", False, True),
        ("ReceiveDisabled", True, False),
        ("Disabled", False, False),
    ],
)
def test_a_status_opens_and_closes_directions(
    client: ServiceBusAdministrationClient, broker: BrokerThread, status: str, sends: bool, receives: bool
) -> None:
    queue = client.get_queue("orders")
    queue.status = status
    client.update_queue(queue)
    assert client.get_queue("orders").status == status
    broker_client = ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0)
    with broker_client as data:
        assert works(lambda: send(data)) is sends
        assert works(lambda: receive(data)) is receives


def send(data: ServiceBusClient) -> None:
    with data.get_queue_sender("orders") as sender:
        sender.send_messages(ServiceBusMessage("x"))


def receive(data: ServiceBusClient) -> None:
    with data.get_queue_receiver("orders", max_wait_time=1) as receiver:
        receiver.receive_messages(1)


def works(action: Callable[[], None]) -> bool:
    try:
        action()
    except MessagingEntityDisabledError:
        return False
    return True


def test_a_premium_namespace_allows_larger_messages(start_broker: Callable[..., BrokerThread]) -> None:
    with administration(start_broker(TOPOLOGY, tier=Tier.PREMIUM)) as client:
        assert client.get_namespace_properties().messaging_sku == "Premium"
        assert client.get_namespace_properties().messaging_units == 1
        assert client.get_queue("orders").max_message_size_in_kilobytes == 1024
        made = client.create_queue("large", max_message_size_in_kilobytes=102_400, max_size_in_megabytes=81_920)
        assert made.max_message_size_in_kilobytes == 102_400
        with pytest.raises(HttpResponseError, match="MaxMessageSizeInKilobytes"):
            client.create_topic("larger", max_message_size_in_kilobytes=102_401)


def test_entities_that_were_made_at_run_time_can_be_used_at_once(
    client: ServiceBusAdministrationClient, broker: BrokerThread
) -> None:
    client.create_queue("fresh", requires_session=True)
    with ServiceBusClient.from_connection_string(broker.connection_string) as data:
        with data.get_queue_sender("fresh") as sender:
            sender.send_messages(ServiceBusMessage("x", session_id="s"))
        with data.get_queue_receiver("fresh", session_id="s", max_wait_time=5) as receiver:
            (message,) = receiver.receive_messages(1)
            receiver.complete_message(message)
    assert client.get_queue_runtime_properties("fresh").total_message_count == 0

"""Messages that travel by themselves: rules with actions, forwarding to sessions, and dead letters on the way."""

from collections.abc import Iterator

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.exceptions import ServiceBusError
from azure.servicebus.management import (
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
)

from fusebus.servicebus.testing import BrokerThread

WAIT_SECONDS = 20.0


@pytest.fixture
def client(broker: BrokerThread) -> Iterator[ServiceBusClient]:
    with ServiceBusClient.from_connection_string(broker.connection_string) as client:
        yield client


@pytest.fixture
def administration(broker: BrokerThread) -> Iterator[ServiceBusAdministrationClient]:
    made = ServiceBusAdministrationClient.from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path)
    )
    with made as administration:
        yield administration


def test_a_topic_feeds_a_session_queue_through_rules_with_actions(
    client: ServiceBusClient, administration: ServiceBusAdministrationClient
) -> None:
    administration.create_queue("work", requires_session=True)
    administration.create_topic("images")
    administration.create_subscription("images", "all", forward_to="work")
    administration.delete_rule("images", "all", "$Default")
    administration.create_rule(
        "images",
        "all",
        "enlarge",
        filter=SqlRuleFilter("width > 10 AND kind IN ('jpeg', 'png')"),
        action=SqlRuleAction("SET width = width * 2; SET sys.Label = 'large'; REMOVE kind"),
    )
    with client.get_topic_sender("images") as sender:
        for width in (5, 20, 30):
            properties = {"width": width, "kind": "jpeg"}
            sender.send_messages(ServiceBusMessage("x", session_id="s", subject="?", application_properties=properties))
    with client.get_queue_receiver("work", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT_SECONDS) as receiver:
        assert receiver.session.session_id == "s"
        first, second = (next(receiver) for _ in range(2))
        for message in (first, second):
            receiver.complete_message(message)
    assert [message.application_properties[b"width"] for message in (first, second)] == [40, 60]
    assert set(first.application_properties) == {b"width", b"RuleName"}
    assert (first.application_properties[b"RuleName"], first.subject) == (b"enlarge", "large")
    assert (first.sequence_number, first.enqueued_sequence_number) == (1, 2)


def test_dead_letters_travel_with_their_reason_and_source(
    client: ServiceBusClient, administration: ServiceBusAdministrationClient
) -> None:
    administration.create_queue("graves")
    administration.create_queue("orders", forward_dead_lettered_messages_to="graves")
    with client.get_queue_sender("orders") as sender:
        sender.send_messages([ServiceBusMessage("good"), ServiceBusMessage("bad")])
    with client.get_queue_receiver("orders", max_wait_time=WAIT_SECONDS) as receiver:
        receiver.complete_message(next(receiver))
        receiver.dead_letter_message(next(receiver), reason="Bad", error_description="very bad")
    with client.get_queue_receiver("graves", max_wait_time=WAIT_SECONDS) as receiver:
        message = next(receiver)
        receiver.complete_message(message)
    assert (message.dead_letter_reason, message.dead_letter_source) == ("Bad", "orders")
    assert (message.sequence_number, message.enqueued_sequence_number) == (1, 2)


def test_what_finds_no_way_waits_in_the_transfer_dead_letter_queue(
    client: ServiceBusClient, administration: ServiceBusAdministrationClient
) -> None:
    administration.create_queue("end")
    administration.create_queue("start", forward_to="end")
    administration.delete_queue("end")
    with client.get_queue_sender("start") as sender:
        sender.send_messages(ServiceBusMessage("lost"))
    assert administration.get_queue_runtime_properties("start").transfer_dead_letter_message_count == 1
    with client.get_queue_receiver(
        "start", sub_queue=ServiceBusSubQueue.TRANSFER_DEAD_LETTER, max_wait_time=WAIT_SECONDS
    ) as receiver:
        message = next(receiver)
        assert str(message) == "lost"
        receiver.complete_message(message)
    with pytest.raises(ServiceBusError, match="forwards"), client.get_queue_receiver("start") as receiver:
        receiver.receive_messages(max_wait_time=1)

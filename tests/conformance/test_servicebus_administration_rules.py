"""Rules with expressions, parameters and actions through the unmodified SDK, and what they do to messages."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.management import (
    CorrelationRuleFilter,
    FalseRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)

from fusebus.servicebus.testing import BrokerThread

TOPOLOGY = {"topics": [{"name": "images", "subscriptions": [{"name": "detect", "rules": []}]}]}
PARAMETERS = {
    "@text": "<a> & 'b'",
    "@int": 3,
    "@long": 2**40,
    "@double": 1.5,
    "@flag": True,
    "@time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "@local": datetime(2026, 1, 2, 3, 4, 5),
    "@span": timedelta(minutes=3, seconds=1.5),
}


@pytest.fixture
def client(broker: BrokerThread) -> Iterator[ServiceBusAdministrationClient]:
    with ServiceBusAdministrationClient.from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path), retry_total=0
    ) as client:
        yield client


@pytest.fixture
def data(broker: BrokerThread) -> Iterator[ServiceBusClient]:
    with ServiceBusClient.from_connection_string(broker.connection_string) as data:
        yield data


def delivered(data: ServiceBusClient, *messages: ServiceBusMessage, count: int) -> list[Any]:
    """What the subscription gets of the messages, once `count` have come."""
    with data.get_topic_sender("images") as sender:
        sender.send_messages(list(messages))
    with data.get_subscription_receiver("images", "detect") as receiver:
        found = []
        while len(found) < count:
            received = receiver.receive_messages(count - len(found), max_wait_time=5)
            assert received, found
            found += received
        for message in found:
            receiver.complete_message(message)
    return found


def test_parameters_and_actions_go_there_and_back(client: ServiceBusAdministrationClient) -> None:
    condition = "text = @text AND n IN (@int, @long) AND at < @time"
    made = client.create_rule(
        "images",
        "detect",
        "r",
        filter=SqlRuleFilter(condition, PARAMETERS),
        action=SqlRuleAction("SET n = @int + 1; REMOVE text", {"@int": 3}),
    )
    for rule in (made, client.get_rule("images", "detect", "r"), *client.list_rules("images", "detect")):
        assert rule.filter.sql_expression == condition
        assert dict(rule.filter.parameters) == PARAMETERS
        assert rule.action.sql_expression == "SET n = @int + 1; REMOVE text"
        assert dict(rule.action.parameters) == {"@int": 3}
    client.update_rule("images", "detect", made)
    assert dict(client.get_rule("images", "detect", "r").filter.parameters) == PARAMETERS


def test_a_topic_counts_the_filters_of_its_subscriptions(client: ServiceBusAdministrationClient) -> None:
    client.create_subscription("images", "other")  # with a rule that takes everything
    client.create_rule("images", "other", "sql", filter=SqlRuleFilter("1=1"))
    client.create_rule("images", "detect", "correlation", filter=CorrelationRuleFilter(correlation_id="abc"))
    counts = client.get_topic_runtime_properties("images")
    assert (counts.sql_filter_count, counts.correlation_filter_count) == (2, 1)


def test_an_action_can_be_taken_away(client: ServiceBusAdministrationClient) -> None:
    rule = client.create_rule("images", "detect", "r", filter=TrueRuleFilter(), action=SqlRuleAction("SET a = 1"))
    rule.action = None
    client.update_rule("images", "detect", rule)
    assert client.get_rule("images", "detect", "r").action is None


def test_a_filter_with_parameters_decides(client: ServiceBusAdministrationClient, data: ServiceBusClient) -> None:
    condition = "user.kind LIKE @pattern AND size * 2 >= @least AND sys.Label IN ('a', 'b') AND NOT EXISTS(skip)"
    parameters = {"@pattern": "de%t", "@least": 10}
    client.create_rule("images", "detect", "r", filter=SqlRuleFilter(condition, parameters))

    def message(body: str, label: str = "a", **properties: Any) -> ServiceBusMessage:
        return ServiceBusMessage(body, subject=label, application_properties=properties)

    (found,) = delivered(
        data,
        message("small", kind="detect", size=4),
        message("other", kind="convert", size=9),
        message("label", "c", kind="detect", size=9),
        message("skipped", kind="detect", size=9, skip=True),
        message("taken", kind="detect", size=5),
        count=1,
    )
    assert str(found) == "taken"


def test_an_action_changes_what_is_received(client: ServiceBusAdministrationClient, data: ServiceBusClient) -> None:
    client.create_rule(
        "images",
        "detect",
        "r",
        filter=SqlRuleFilter("n = 7"),
        action=SqlRuleAction(
            "SET n = n * @factor; SET sys.Label = 'was ' + sys.Label; SET sys.To = 'x'; REMOVE gone", {"@factor": 6}
        ),
    )
    (found,) = delivered(
        data,
        ServiceBusMessage("body", subject="new", application_properties={"n": 7, "gone": True, "kept": "k"}),
        count=1,
    )
    properties = {key.decode(): value for key, value in found.application_properties.items()}
    assert (properties["n"], properties["kept"], "gone" in properties) == (42, b"k", False)
    assert (found.subject, found.to, str(found)) == ("was new", "x", "body")


def test_rules_without_actions_share_a_copy_and_each_action_makes_its_own(
    client: ServiceBusAdministrationClient, data: ServiceBusClient
) -> None:
    client.create_rule("images", "detect", "a", filter=TrueRuleFilter())
    client.create_rule("images", "detect", "b", filter=CorrelationRuleFilter(label="l"))
    client.create_rule("images", "detect", "c", filter=TrueRuleFilter(), action=SqlRuleAction("SET by = 'c'"))
    client.create_rule("images", "detect", "d", filter=SqlRuleFilter("1=1"), action=SqlRuleAction("SET by = 'd'"))
    client.create_rule("images", "detect", "e", filter=FalseRuleFilter(), action=SqlRuleAction("SET by = 'e'"))
    found = delivered(data, ServiceBusMessage("x", subject="l"), count=3)
    marks = sorted((message.application_properties or {}).get(b"by", b"") for message in found)
    assert marks == [b"", b"c", b"d"]
    assert client.get_subscription_runtime_properties("images", "detect").total_message_count == 0


@pytest.mark.parametrize(("buries", "count"), [(True, 1), (False, 0)])
def test_a_filter_that_fails_buries_the_message_or_drops_it(
    client: ServiceBusAdministrationClient, data: ServiceBusClient, buries: bool, count: int
) -> None:
    subscription = client.get_subscription("images", "detect")
    subscription.dead_lettering_on_filter_evaluation_exceptions = buries
    client.update_subscription("images", subscription)
    client.create_rule("images", "detect", "r", filter=SqlRuleFilter("1 / n = 1"))
    with data.get_topic_sender("images") as sender:
        sender.send_messages(ServiceBusMessage("x", application_properties={"n": 0}))
    counts = client.get_subscription_runtime_properties("images", "detect")
    assert (counts.active_message_count, counts.dead_letter_message_count) == (0, count)


@pytest.mark.parametrize(
    ("rule", "detail"),
    [
        ({"filter": SqlRuleFilter("kind = ")}, "Filter: SqlExpression: expected .* at position 8"),
        ({"filter": SqlRuleFilter("a = @b", {"@c": 1})}, "parameter @b has no value at position 5"),
        ({"filter": SqlRuleFilter("x" * 1025)}, "longer than 1024 characters"),
        ({"filter": SqlRuleFilter("sys.Nothing = 1")}, "unknown system property 'Nothing' at position 5"),
        ({"action": SqlRuleAction("SET a = ")}, "Action: SqlExpression: expected .* at position 9"),
        ({"action": SqlRuleAction("DROP a")}, "expected SET or REMOVE, found DROP at position 1"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_position(
    client: ServiceBusAdministrationClient, rule: dict[str, Any], detail: str
) -> None:
    with pytest.raises(HttpResponseError, match=detail) as refusal:
        client.create_rule("images", "detect", "r", **rule)
    assert refusal.value.status_code == 400
    assert list(client.list_rules("images", "detect")) == []

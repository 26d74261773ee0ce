"""Microsoft's emulator's config.json: read as it is, with its defaults, and errors that name their place."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fusebus.servicebus.config import ConfigError, load_topology
from fusebus.servicebus.engine import CorrelationFilter, Engine, Message, SqlAction, SqlFilter, TrueFilter

QUEUE_PROPERTIES = {
    "DeadLetteringOnMessageExpiration": True,
    "DefaultMessageTimeToLive": "PT45M",
    "DuplicateDetectionHistoryTimeWindow": "PT30S",
    "ForwardDeadLetteredMessagesTo": "topic.1",
    "ForwardTo": "",
    "LockDuration": "PT1M30S",
    "MaxDeliveryCount": 7,
    "RequiresDuplicateDetection": True,
    "RequiresSession": True,
}
CORRELATION = {
    "Name": "app-prop-filter-1",
    "Properties": {
        "FilterType": "Correlation",
        "CorrelationFilter": {
            "ContentType": "application/text",
            "CorrelationId": "id1",
            "Label": "subject1",
            "MessageId": "msgid1",
            "ReplyTo": "someQueue",
            "ReplyToSessionId": "sessionId",
            "SessionId": "session1",
            "To": "xyz",
            "Properties": {"prop1": "value1", "count": 3},
        },
    },
}
SQL = {
    "Name": "sql-filter-1",
    "Properties": {
        "FilterType": "Sql",
        "SqlFilter": {"SqlExpression": "sys.MessageId = '123456' AND userProp1 = 'value1'"},
        "Action": {"SqlExpression": "SET sys.To = 'Entity'"},
    },
}
CONFIG: dict[str, Any] = {
    "UserConfig": {
        "Namespaces": [
            {
                "Name": "sbemulatorns",
                "Queues": [{"Name": "queue.1", "Properties": QUEUE_PROPERTIES}, {"Name": "queue.2"}],
                "Topics": [
                    {
                        "Name": "topic.1",
                        "Properties": {
                            "DefaultMessageTimeToLive": "PT1H",
                            "DuplicateDetectionHistoryTimeWindow": "PT20S",
                            "RequiresDuplicateDetection": False,
                        },
                        "Subscriptions": [
                            {
                                "Name": "subscription.1",
                                "Properties": {"LockDuration": "PT5M", "ForwardTo": "queue.2"},
                                "Rules": [CORRELATION, SQL],
                            },
                            {"Name": "subscription.2"},
                            {"Name": "subscription.3", "Rules": []},
                        ],
                    }
                ],
            }
        ],
        "Logging": {"Type": "File"},
    }
}


@pytest.fixture
def engine() -> Engine:
    return Engine(lambda: 0.0)


def test_a_file_is_read_as_it_is(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG), encoding="utf-8-sig")
    load_topology(engine, file)
    found = engine.namespace.queue("queue.1").settings
    assert (found.dead_letter_on_expiry, found.ttl_seconds, found.duplicate_detection_seconds) == (True, 2700, 30)
    assert (found.forward_dead_lettered_to, found.forward_to) == ("topic.1", None)
    assert (found.lock_seconds, found.max_delivery_count, found.requires_session) == (90, 7, True)
    topic = engine.namespace.topic("topic.1").settings
    assert (topic.ttl_seconds, topic.duplicate_detection_seconds) == (3600, 0)
    subscription = engine.namespace.subscription("topic.1", "subscription.1").settings
    assert (subscription.lock_seconds, subscription.forward_to) == (300, "queue.2")


def test_rules_of_both_kinds_and_their_actions_are_read(engine: Engine) -> None:
    load_topology(engine, CONFIG)
    correlation, sql = engine.namespace.rules("topic.1", "subscription.1")
    assert correlation.filter == CorrelationFilter(
        content_type="application/text",
        correlation_id="id1",
        subject="subject1",
        message_id="msgid1",
        reply_to="someQueue",
        reply_to_session_id="sessionId",
        session_id="session1",
        to="xyz",
        properties={"prop1": "value1", "count": 3},
    )
    assert sql.filter == SqlFilter("sys.MessageId = '123456' AND userProp1 = 'value1'")
    assert sql.action == SqlAction("SET sys.To = 'Entity'")
    for name in ("subscription.2", "subscription.3"):
        assert [rule.filter for rule in engine.namespace.rules("topic.1", name)] == [TrueFilter()]


def test_what_is_left_out_is_what_the_emulator_takes(engine: Engine) -> None:
    load_topology(engine, CONFIG)
    found = engine.namespace.queue("queue.2").settings
    assert (found.ttl_seconds, found.lock_seconds, found.max_delivery_count) == (3600, 60, 3)
    assert (found.duplicate_detection_seconds, found.auto_delete_on_idle_seconds) == (0, math.inf)


def test_messages_go_by_its_rules(engine: Engine) -> None:
    load_topology(engine, CONFIG)
    engine.send("topic.1", [Message(b"", message_id="123456", application_properties={"userProp1": "value1"})])
    assert engine.counts("queue.2").active == 1
    assert engine.counts("topic.1/Subscriptions/subscription.2").active == 1


def test_a_setting_that_means_nothing_here_is_reported(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    load_topology(engine, changed(*QUEUE, "Properties", "Colour", value="red"))
    assert "UserConfig.Namespaces[0].Queues[0].Properties.Colour" in caplog.text


NAMESPACE = ("UserConfig", "Namespaces", 0)
QUEUE = (*NAMESPACE, "Queues", 0)
SUBSCRIPTION = (*NAMESPACE, "Topics", 0, "Subscriptions", 0)


def changed(*path: str | int, value: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(CONFIG))
    *parents, last = path
    place = document
    for step in parents:
        place = place[step]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "where", "problem"),
    [
        (("UserConfig",), [], "UserConfig", "must be an object"),
        (("UserConfig", "Namespaces"), [], "UserConfig.Namespaces", "must have one namespace, not 0"),
        (("UserConfig", "Namespaces"), {}, "UserConfig.Namespaces", "must be a list"),
        ((*QUEUE, "Name"), None, "UserConfig.Namespaces[0].Queues[0].Name", "is missing"),
        ((*QUEUE, "Name"), "topic.1", "UserConfig.Namespaces[0].Topics[0]", "exists already"),
        ((*QUEUE, "Name"), "a b", "UserConfig.Namespaces[0].Queues[0]", "is not a name"),
        (
            (*QUEUE, "Properties", "LockDuration"),
            "1 minute",
            "UserConfig.Namespaces[0].Queues[0].Properties.LockDuration",
            "not an ISO 8601 duration",
        ),
        ((*QUEUE, "Properties", "LockDuration"), "PT6M", "UserConfig.Namespaces[0].Queues[0]", "LockDuration"),
        (
            (*QUEUE, "Properties", "DuplicateDetectionHistoryTimeWindow"),
            "soon",
            "UserConfig.Namespaces[0].Queues[0].Properties.DuplicateDetectionHistoryTimeWindow",
            "not an ISO 8601 duration",
        ),
        (
            (*QUEUE, "Properties", "MaxDeliveryCount"),
            "many",
            "UserConfig.Namespaces[0].Queues[0].Properties.MaxDeliveryCount",
            "not a whole number",
        ),
        (
            (*QUEUE, "Properties", "RequiresSession"),
            [True],
            "UserConfig.Namespaces[0].Queues[0].Properties.RequiresSession",
            "must be a string, a whole number, true or false",
        ),
        (
            (*QUEUE, "Properties", "ForwardDeadLetteredMessagesTo"),
            "nothing",
            "UserConfig.Namespaces[0].Queues[0]",
            "ForwardDeadLetteredMessagesTo",
        ),
        (
            (*SUBSCRIPTION, "Rules", 1, "Properties", "FilterType"),
            "Other",
            "UserConfig.Namespaces[0].Topics[0].Subscriptions[0].Rules[1].Properties.FilterType",
            "must be Correlation or Sql",
        ),
        (
            (*SUBSCRIPTION, "Rules", 1, "Properties", "SqlFilter", "SqlExpression"),
            "a = ",
            "UserConfig.Namespaces[0].Topics[0].Subscriptions[0].Rules[1].Properties.SqlFilter.SqlExpression",
            "at position 5",
        ),
        (
            (*SUBSCRIPTION, "Rules", 1, "Properties", "Action", "SqlExpression"),
            "SET",
            "UserConfig.Namespaces[0].Topics[0].Subscriptions[0].Rules[1].Properties.Action.SqlExpression",
            "at position 4",
        ),
        (
            (*SUBSCRIPTION, "Rules", 0, "Properties", "CorrelationFilter", "Lable"),
            "x",
            "UserConfig.Namespaces[0].Topics[0].Subscriptions[0].Rules[0].Properties.CorrelationFilter.Lable",
            "not a known setting",
        ),
        (
            (*SUBSCRIPTION, "Rules", 0, "Properties", "CorrelationFilter"),
            None,
            "UserConfig.Namespaces[0].Topics[0].Subscriptions[0].Rules[0].Properties.CorrelationFilter",
            "is missing",
        ),
    ],
)
def test_an_error_names_its_place(
    engine: Engine, path: tuple[str | int, ...], value: Any, where: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_topology(engine, changed(*path, value=value))
    assert (refusal.value.where, problem in str(refusal.value)) == (where, True), str(refusal.value)

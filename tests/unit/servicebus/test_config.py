"""The topology file: what it makes, and how precisely it complains."""

import json
from pathlib import Path
from typing import Any

import pytest

from fusebus.servicebus.config import ConfigError, load_topology
from fusebus.servicebus.engine import (
    CorrelationFilter,
    Engine,
    EntityStatus,
    Message,
    QueueSettings,
    Right,
    SqlAction,
    SqlFilter,
    TrueFilter,
)

TOPOLOGY: dict[str, Any] = {
    "queues": [{"name": "orders", "lock_seconds": 30, "max_delivery_count": 4, "dead_letter_on_expiry": True}],
    "topics": [
        {
            "name": "images",
            "duplicate_detection_seconds": 600,
            "ttl_seconds": 86400,
            "subscriptions": [
                {
                    "name": "detect",
                    "lock_seconds": 2.5,
                    "rules": [
                        {"name": "kind", "correlation": {"kind": "detect", "count": 1, "sys.Label": "new"}},
                        {"name": "mine", "sql": "only = 'detect'"},
                    ],
                },
                {"name": "all", "rules": [{"name": "every", "true": True}]},
                {"name": "default"},
                {"name": "none", "rules": []},
            ],
        }
    ],
}


@pytest.fixture
def engine() -> Engine:
    return Engine(lambda: 0.0)


def test_a_file_makes_its_entities(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "topology.json"
    file.write_text(json.dumps(TOPOLOGY), encoding="utf-8")
    load_topology(engine, file)
    namespace = engine.namespace
    orders = namespace.queue("orders").settings
    assert (orders.lock_seconds, orders.max_delivery_count, orders.dead_letter_on_expiry) == (30, 4, True)
    assert namespace.topic("images").settings.duplicate_detection_seconds == 600
    assert namespace.subscription("images", "detect").settings.lock_seconds == 2.5
    assert [rule.filter for rule in namespace.rules("images", "detect")] == [
        CorrelationFilter(subject="new", properties={"kind": "detect", "count": 1}),
        SqlFilter("only = 'detect'"),
    ]
    assert [rule.filter for rule in namespace.rules("images", "all")] == [TrueFilter()]


def test_no_rules_means_everything_and_an_empty_list_nothing(engine: Engine) -> None:
    load_topology(engine, TOPOLOGY)
    engine.send("images", [Message(b"")])
    assert engine.counts("images/subscriptions/default").active == 1
    assert engine.counts("images/subscriptions/none").active == 0


def test_every_setting_can_be_written(engine: Engine) -> None:
    load_topology(
        engine,
        {
            "queues": [
                {
                    "name": "in",
                    "requires_session": True,
                    "forward_dead_lettered_to": "later",
                    "auto_delete_on_idle_seconds": 60,
                    "enable_partitioning": True,
                    "max_message_kilobytes": 1024,
                    "user_metadata": "m",
                    "status": "SendDisabled",
                    "authorization_rules": [{"name": "k", "rights": ["Send"], "primary_key": "p"}],
                },
                {"name": "later"},
            ]
        },
    )
    found = engine.namespace.queue("in").settings
    assert (found.requires_session, found.forward_dead_lettered_to, found.status) == (
        True,
        "later",
        EntityStatus.SEND_DISABLED,
    )
    assert (found.auto_delete_on_idle_seconds, found.max_message_kilobytes, found.user_metadata) == (60, 1024, "m")
    (rule,) = found.authorization_rules
    assert (rule.name, rule.rights, rule.primary_key, bool(rule.secondary_key)) == ("k", {Right.SEND}, "p", True)


def test_rules_have_parameters_and_actions(engine: Engine) -> None:
    rule = {"name": "r", "sql": "a = @p", "parameters": {"@p": 1}, "action": "SET a = @p + 1"}
    load_topology(engine, {"topics": [{"name": "t", "subscriptions": [{"name": "s", "rules": [rule]}]}]})
    (found,) = engine.namespace.rules("t", "s")
    assert found.filter == SqlFilter("a = @p", {"@p": 1})
    assert found.action == SqlAction("SET a = @p + 1", {"@p": 1})


def test_keys_for_the_whole_namespace_are_handed_back(engine: Engine) -> None:
    rules = [{"name": "reader", "rights": ["Listen"], "primary_key": "p", "secondary_key": "s"}]
    (found,) = load_topology(engine, {"authorization_rules": rules}).authorization_rules
    assert (found.name, found.rights, found.primary_key, found.secondary_key) == ("reader", {Right.LISTEN}, "p", "s")


def test_what_is_there_can_be_kept(engine: Engine) -> None:
    engine.namespace.create_queue("orders", QueueSettings(lock_seconds=7))
    with pytest.raises(ConfigError, match="exists already"):
        load_topology(engine, TOPOLOGY)
    load_topology(engine, TOPOLOGY, keep_existing=True)
    load_topology(engine, TOPOLOGY, keep_existing=True)
    assert engine.namespace.queue("orders").settings.lock_seconds == 7
    assert len(engine.namespace.subscriptions("images")) == 4


NAMED_TWICE: list[tuple[dict[str, Any], str]] = [
    ({"queues": [{"name": "a"}, {"name": "A"}]}, "queues[1]"),
    ({"queues": [{"name": "a"}], "topics": [{"name": "A"}]}, "topics[0]"),
    (
        {"topics": [{"name": "a", "subscriptions": [{"name": "s"}, {"name": "t"}, {"name": "S"}]}]},
        "topics[0].subscriptions[2]",
    ),
]


@pytest.mark.parametrize(("document", "place"), NAMED_TWICE)
@pytest.mark.parametrize("there", [False, True])
def test_a_name_twice_is_refused_though_what_is_there_may_stay(
    engine: Engine, document: dict[str, Any], place: str, there: bool
) -> None:
    if there:
        kind = "queues" if "queues" in document else "topics"
        load_topology(engine, {kind: document[kind][:1] if kind == "queues" else [{"name": "a"}]})
    with pytest.raises(ConfigError, match="exists already") as refusal:
        load_topology(engine, document, keep_existing=True)
    assert refusal.value.where == place


def test_a_name_may_be_used_again_under_another_topic(engine: Engine) -> None:
    subscriptions = [{"name": "s"}]
    topics = [{"name": name, "subscriptions": subscriptions} for name in ("s", "t")]
    load_topology(engine, {"topics": topics}, keep_existing=True)
    assert [len(engine.namespace.subscriptions(name)) for name in ("s", "t")] == [1, 1]


def broken(*path: str | int, value: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(TOPOLOGY))
    *parents, last = path
    place = document
    for step in parents:
        place = place[step]
    place[last] = value
    return document


SUBSCRIPTION = ("topics", 0, "subscriptions", 0)


@pytest.mark.parametrize(
    ("document", "place", "problem"),
    [
        ({"queues": [{"name": "a", "forward_to": "b"}]}, "queues[0]", "ForwardTo"),
        ({"queues": [{"name": "a", "status": "Off"}]}, "queues[0].status", "must be one of Active"),
        ({"authorization_rules": [{"name": "k"}]}, "authorization_rules[0].rights", "must be a list of"),
        (
            {"authorization_rules": [{"name": "k", "rights": ["Send"]}]},
            "authorization_rules[0].primary_key",
            "must be a string",
        ),
        (
            {"authorization_rules": [{"name": "k", "rights": ["Write"], "primary_key": "p"}]},
            "authorization_rules[0].rights",
            "Rights of 'k'",
        ),
        (
            {"authorization_rules": [{"name": "k", "rights": ["Send"], "key": "x"}]},
            "authorization_rules[0].key",
            "not a known setting",
        ),
        (
            broken(*SUBSCRIPTION, "rules", 1, "action", value="SET"),
            "topics[0].subscriptions[0].rules[1].action",
            "at position 4",
        ),
        (
            broken(*SUBSCRIPTION, "rules", 1, "parameters", value={"@p": []}),
            "topics[0].subscriptions[0].rules[1].parameters.@p",
            "must be a string, a number",
        ),
        ([], "", "must be an object"),
        (broken("queues", value={}), "queues", "must be a list"),
        (broken("queue", value=[]), "queue", "not a known setting"),
        (broken("queues", 0, value="orders"), "queues[0]", "must be an object"),
        (broken("queues", 0, "name", value=None), "queues[0].name", "is missing"),
        (broken("queues", 0, "name", value="a b"), "queues[0]", "'a b' is not a name"),
        (broken("queues", 0, "lock_seconds", value="30"), "queues[0].lock_seconds", "must be a number, not '30'"),
        (broken("queues", 0, "lock_seconds", value=True), "queues[0].lock_seconds", "must be a number"),
        (broken("queues", 0, "lock_seconds", value=999), "queues[0]", "at most 300"),
        (broken("queues", 0, "max_delivery_count", value=1.5), "queues[0].max_delivery_count", "a whole number"),
        (broken("queues", 0, "name", value="Images"), "topics[0]", "exists already"),
        (broken(*SUBSCRIPTION, "lock_secs", value=1), "topics[0].subscriptions[0].lock_secs", "not a known setting"),
        (broken(*SUBSCRIPTION, "name", value="all"), "topics[0].subscriptions[1]", "exists already"),
        (
            broken(*SUBSCRIPTION, "rules", 1, "sql", value="only = "),
            "topics[0].subscriptions[0].rules[1].sql",
            "at position 8",
        ),
        (
            broken(*SUBSCRIPTION, "rules", 1, "correlation", value={}),
            "topics[0].subscriptions[0].rules[1]",
            "one of correlation, sql, true, false",
        ),
        (
            broken(*SUBSCRIPTION, "rules", 0, "correlation", "kind", value=[1]),
            "topics[0].subscriptions[0].rules[0].correlation.kind",
            "must be a string, a number, true or false",
        ),
        (
            broken(*SUBSCRIPTION, "rules", 0, "correlation", "sys.Size", value="1"),
            "topics[0].subscriptions[0].rules[0].correlation.sys.Size",
            "not a system property",
        ),
        (
            broken("topics", 0, "subscriptions", 1, "rules", 0, "true", value=False),
            "topics[0].subscriptions[1].rules[0].true",
            "can only be true",
        ),
    ],
)
def test_an_error_names_its_place_in_the_file(engine: Engine, document: Any, place: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load_topology(engine, document)
    assert refusal.value.where == place
    assert problem in str(refusal.value)


def test_a_file_that_is_not_json_says_so(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "topology.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="not JSON"):
        load_topology(engine, file)

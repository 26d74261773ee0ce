"""The topology file: what it makes, and how precisely it complains."""

import json
from pathlib import Path
from typing import Any

import pytest

from fusebus.servicebus.config import ConfigError, load_topology
from fusebus.servicebus.engine import CorrelationFilter, Engine, Message, SqlFilter, TrueFilter

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

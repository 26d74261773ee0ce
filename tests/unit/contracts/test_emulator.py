"""The config.json of the emulator: our topology within the limits Microsoft publishes, read alike by our broker."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fusebus.contracts.emulator import duration, emulator_configuration
from fusebus.contracts.topology import TOPICS, broker_configuration
from fusebus.servicebus.config import load_topology
from fusebus.servicebus.engine import Engine

COMMITTED = Path(__file__).parents[3] / "deploy/docker/emulator/config.json"
NAME = re.compile(r"^[A-Za-z0-9]$|^[A-Za-z0-9][\w\-./]*[A-Za-z0-9]$")
ISO = re.compile(r"^P(?!$)(?:\d+Y)?(?:\d+M)?(?:\d+D)?(?:T(?:\d+H)?(?:\d+M)?(?:\d+S)?)?$")


def seconds(text: str) -> int:
    assert ISO.match(text), text
    found = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?", text)
    assert found is not None
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest


@pytest.fixture
def namespace() -> dict[str, Any]:
    (found,) = emulator_configuration()["UserConfig"]["Namespaces"]
    return found


def test_the_committed_file_is_what_the_command_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "fusebus.contracts", "emulator"], check=True, capture_output=True, text=True
    ).stdout
    assert COMMITTED.read_text() == printed, (
        "call: python -m fusebus.contracts emulator > deploy/docker/emulator/config.json"
    )


def test_an_unknown_format_is_a_usage_error() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fusebus.contracts", "kafka"], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "usage" in ended.stderr


def test_the_file_keeps_the_emulators_counts(namespace: dict[str, Any]) -> None:
    assert namespace["Name"] == "sbemulatorns"
    assert len(namespace["Queues"]) + len(namespace["Topics"]) <= 50
    sql = 0
    for topic in namespace["Topics"]:
        assert 1 <= len(topic["Subscriptions"]) <= 50
        rules = [rule for found in topic["Subscriptions"] for rule in found.get("Rules", [])]
        assert sum(rule["Properties"]["FilterType"] == "Correlation" for rule in rules) <= 1000
        sql += sum(rule["Properties"]["FilterType"] == "Sql" for rule in rules)
    assert sql <= 20


def test_every_name_and_expression_is_one_that_the_emulator_takes(namespace: dict[str, Any]) -> None:
    for topic in namespace["Topics"]:
        assert NAME.match(topic["Name"])
        for found in topic["Subscriptions"]:
            assert NAME.match(found["Name"])
            for rule in found.get("Rules", []):
                assert NAME.match(rule["Name"])
                properties = rule["Properties"]
                if properties["FilterType"] == "Sql":
                    assert 0 < len(properties["SqlFilter"]["SqlExpression"]) <= 1024
                else:
                    assert properties["CorrelationFilter"]["Properties"]


def test_every_time_and_delivery_count_is_within_the_emulators(namespace: dict[str, Any]) -> None:
    for topic in namespace["Topics"]:
        assert 300 <= seconds(topic["Properties"]["DefaultMessageTimeToLive"]) <= 3600
        assert 5 <= seconds(topic["Properties"]["DuplicateDetectionHistoryTimeWindow"]) <= 300
        for found in topic["Subscriptions"]:
            assert 300 <= seconds(found["Properties"]["DefaultMessageTimeToLive"]) <= 3600
            assert 60 <= seconds(found["Properties"]["LockDuration"]) <= 300
            assert 1 <= found["Properties"]["MaxDeliveryCount"] <= 10


def test_it_names_the_entities_of_the_topology_and_no_others(namespace: dict[str, Any]) -> None:
    found = {topic["Name"]: {one["Name"] for one in topic["Subscriptions"]} for topic in namespace["Topics"]}
    assert found == {topic.name: {one.name for one in topic.subscriptions} for topic in TOPICS}


def test_our_broker_makes_the_same_rules_of_it_as_of_its_own_format() -> None:
    emulators, own = Engine(lambda: 0.0), Engine(lambda: 0.0)
    load_topology(emulators, json.loads(COMMITTED.read_text()))
    load_topology(own, broker_configuration())
    for topic in TOPICS:
        for found in topic.subscriptions:
            read = [rule.filter for rule in emulators.namespace.rules(topic.name, found.name)]
            assert read == [rule.filter for rule in own.namespace.rules(topic.name, found.name)]


@pytest.mark.parametrize(("given", "expected"), [(60, "PT1M"), (90, "PT90S"), (3600, "PT1H"), (5, "PT5S")])
def test_a_duration_is_told_in_its_largest_whole_unit(given: float, expected: str) -> None:
    assert duration(given) == expected

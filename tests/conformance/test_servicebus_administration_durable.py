"""What was made through the SDK, settings, keys and expressions with all they hold, is there after a restart."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from azure.servicebus.management import (
    AccessRights,
    AuthorizationRule,
    CorrelationRuleFilter,
    FalseRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
)

from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.testing import BrokerThread

TOPOLOGY = {"topics": [{"name": "images", "subscriptions": [{"name": "detect"}]}]}
PARAMETERS = {
    "@int": 2**40,
    "@double": 1.5,
    "@text": "<ü>",
    "@flag": True,
    "@time": datetime(2026, 1, 2, tzinfo=UTC),
    "@span": timedelta(minutes=3),
}


def administration(broker: BrokerThread) -> ServiceBusAdministrationClient:
    return ServiceBusAdministrationClient.from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path), retry_total=0
    )


def plain(value: Any) -> Any:
    """Values of a description, at any depth; counts and the time of the last access are not settings."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "__dict__"):
        return {name: plain(item) for name, item in vars(value).items() if not name.startswith("_")}
    return dict(value) if isinstance(value, dict) else value


def everything(broker: BrokerThread) -> list[Any]:
    with administration(broker) as client:
        found = [
            *client.list_queues(),
            *client.list_topics(),
            *client.list_subscriptions("images"),
            *client.list_rules("images", "detect"),
        ]
        return without_host([*plain(found), client.get_queue_runtime_properties("all").created_at_utc])


def make(client: ServiceBusAdministrationClient) -> None:
    rule = AuthorizationRule(
        type="SharedAccessAuthorizationRule", key_name="k", rights=[AccessRights.SEND, AccessRights.LISTEN]
    )
    client.create_queue("target")
    client.create_queue(
        "all",
        requires_session=True,
        forward_dead_lettered_messages_to="target",
        auto_delete_on_idle=timedelta(hours=1),
        requires_duplicate_detection=True,
        user_metadata="<kept>",
        authorization_rules=[rule],
    )
    queue = client.get_queue("all")
    queue.status = "SendDisabled"
    client.update_queue(queue)


def make_rules(client: ServiceBusAdministrationClient) -> None:
    condition = SqlRuleFilter("a IN (@int, @double, @text, @flag) OR b < @time OR c = @span", PARAMETERS)
    action = SqlRuleAction("SET x = @y; REMOVE z", {"@y": True})
    correlation = CorrelationRuleFilter(label="l", properties={"n": 1})
    client.create_rule("images", "detect", "sql", filter=condition, action=action)
    client.create_rule("images", "detect", "correlation", filter=correlation)
    client.create_rule("images", "detect", "false", filter=FalseRuleFilter())
    client.delete_rule("images", "detect", "$Default")


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    options = BrokerOptions(topology=TOPOLOGY, data=tmp_path / "data", ca_directory=tmp_path / "authority")
    with BrokerThread(options) as first:
        with administration(first) as client:
            make(client)
            make_rules(client)
        before = everything(first)
    with BrokerThread(options) as second:
        after = everything(second)
    assert len(before) == 8
    assert after == before


def without_host(found: list[Any]) -> list[Any]:
    """The second broker listens on another port, which is in the addresses of forwards."""
    for entity in found:
        if isinstance(entity, dict) and entity.get("forward_dead_lettered_messages_to"):
            address = entity["forward_dead_lettered_messages_to"]
            entity["forward_dead_lettered_messages_to"] = address.rpartition("/")[2]
    return found

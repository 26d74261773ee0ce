"""The topology as `config.json` of Microsoft's Service Bus emulator: the same entities, within what it admits."""

from __future__ import annotations

from typing import Any

from fusebus.contracts.topology import broker_configuration

# What the emulator admits, as Microsoft publishes it (overview, usage quotas; schema of its config.json).
NAMESPACE = "sbemulatorns"  # the only name it takes
MOST_ENTITIES = 50  # queues and topics together
MOST_SUBSCRIPTIONS = 50  # of one topic
MOST_CORRELATION_FILTERS = 1000  # of one topic
MOST_SQL_FILTERS = 20
MOST_EXPRESSION_LENGTH = 1024  # characters
MOST_DELIVERIES = 10
LOCK_SECONDS = (60.0, 300.0)
TTL_SECONDS = (300.0, 3600.0)
DUPLICATE_SECONDS = (5.0, 300.0)


def emulator_configuration() -> dict[str, Any]:
    """The whole file. Times and delivery counts are the topology's where the emulator admits them, else its limits."""
    topics = [_topic(topic) for topic in broker_configuration()["topics"]]
    return {
        "UserConfig": {
            "Namespaces": [{"Name": NAMESPACE, "Queues": [], "Topics": topics}],
            "Logging": {"Type": "Console"},
        }
    }


def duration(seconds: float) -> str:
    """ISO 8601 in whole seconds, minutes or hours: PT90S, PT5M, PT1H."""
    whole = round(seconds)
    for unit, length in (("H", 3600), ("M", 60)):
        if whole % length == 0:
            return f"PT{whole // length}{unit}"
    return f"PT{whole}S"


def _topic(topic: dict[str, Any]) -> dict[str, Any]:
    window = topic["duplicate_detection_seconds"]
    return {
        "Name": topic["name"],
        "Properties": {
            "DefaultMessageTimeToLive": _admitted(topic["ttl_seconds"], TTL_SECONDS),
            "DuplicateDetectionHistoryTimeWindow": _admitted(window, DUPLICATE_SECONDS),
            "RequiresDuplicateDetection": window > 0,
        },
        "Subscriptions": [_subscription(found) for found in topic["subscriptions"]],
    }


def _subscription(found: dict[str, Any]) -> dict[str, Any]:
    rules = [_rule(rule) for rule in found["rules"] if "true" not in rule]
    return {
        "Name": found["name"],
        "Properties": {
            "DeadLetteringOnMessageExpiration": found["dead_letter_on_expiry"],
            "DefaultMessageTimeToLive": _admitted(found["ttl_seconds"], TTL_SECONDS),
            "LockDuration": _admitted(found["lock_seconds"], LOCK_SECONDS),
            "MaxDeliveryCount": min(found["max_delivery_count"], MOST_DELIVERIES),
            "RequiresSession": found.get("requires_session", False),
        },
        # Without a rule it gets the emulator's own, which admits everything.
        **({"Rules": rules} if rules else {}),
    }


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    if "sql" in rule:
        properties = {"FilterType": "Sql", "SqlFilter": {"SqlExpression": rule["sql"]}}
    else:
        properties = {"FilterType": "Correlation", "CorrelationFilter": {"Properties": rule["correlation"]}}
    return {"Name": rule["name"], "Properties": properties}


def _admitted(seconds: float, limits: tuple[float, float]) -> str:
    least, most = limits
    return duration(min(max(seconds, least), most))

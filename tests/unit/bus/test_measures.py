"""What the bus counts and times, and with which attributes."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fusebus.bus import measures
from fusebus.bus.settlement import Source

SOURCE = Source(topic="images", subscription="detect")


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Collects: by metric, its points."""
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter("test")
    for name in ("_sent", "_received", "_redelivered"):
        monkeypatch.setattr(measures, name, meter.create_counter(name.strip("_")))
    for name in ("_operation", "_process", "_wait"):
        monkeypatch.setattr(measures, name, meter.create_histogram(name.strip("_")))

    def collect() -> dict[str, list[Any]]:
        data = reader.get_metrics_data()
        scopes = data.resource_metrics[0].scope_metrics if data else []
        found: list[Any] = [metric for scope in scopes for metric in scope.metrics]
        return {metric.name: list(metric.data.data_points) for metric in found}

    return collect


def test_only_what_came_before_counts_as_redelivered(points: Any) -> None:
    for delivery_count in (0, 0, 1, 7):
        measures.received(SOURCE, delivery_count)
    found = points()
    assert found["received"][0].value == 4
    assert found["redelivered"][0].value == 2
    assert found["redelivered"][0].attributes["messaging.destination.subscription.name"] == "detect"


def test_a_send_that_fails_is_counted_with_the_type_of_its_error(points: Any) -> None:
    with measures.operation("send", "images", messages=3):
        pass
    with pytest.raises(TimeoutError), measures.operation("send", "images", messages=2):
        raise TimeoutError
    found = points()
    sent = {point.attributes.get("error.type"): point.value for point in found["sent"]}
    assert sent == {None: 3, "TimeoutError": 2}
    assert {point.attributes.get("error.type"): point.count for point in found["operation"]} == {
        None: 1,
        "TimeoutError": 1,
    }


def test_a_message_of_an_unknown_time_has_no_wait(points: Any) -> None:
    measures.waited(SOURCE, None)
    assert "wait" not in points()

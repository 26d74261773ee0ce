"""What the dispatcher's gauges show, and when they show nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fusebus.contracts.messages import JobKind
from fusebus.costs import Budget, MonthSoFar
from fusebus.dispatcher import telemetry
from fusebus.dispatcher.seen import NodeSeen, PoolSeen
from fusebus.dispatcher.steps import Target

NOW = datetime(2026, 5, 4, 8, tzinfo=UTC)


class Shown:
    """Gauges on a clock that stands still, and what a collection of them gives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader])
        monkeypatch.setattr(telemetry, "_meter", provider.get_meter("test"))
        self.gauges = telemetry.Gauges(10.0, lambda: self.now)

    def values(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        data = self._reader.get_metrics_data()
        scopes = data.resource_metrics[0].scope_metrics if data else []
        metrics: list[Any] = [metric for scope in scopes for metric in scope.metrics]
        return {
            metric.name.removeprefix("fusebus."): [(dict(one.attributes), one.value) for one in metric.data.data_points]
            for metric in metrics
        }


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    return Shown(monkeypatch)


def look(shown: Shown, *, spent: float | None = 12.0, hold: bool = False, depth: int | None = 7) -> None:
    nodes = (NodeSeen(id="1", state="idle"), NodeSeen(id="2", state="starting", dedicated=True))
    facts: Any = SimpleNamespace(
        now=NOW,
        pools={"gpu": PoolSeen(name="gpu", steady=True, nodes=nodes)},
        depths={JobKind.DETECT: depth},
        open_runs=None,
    )
    known = SimpleNamespace(boot=SimpleNamespace(p50=240.0), rate=SimpleNamespace(seconds_per_image=1.5))
    memory: Any = SimpleNamespace(pools={"gpu": known, "lost": known}, breaker_words=lambda pool, now: "")
    so_far = MonthSoFar(month="2026-05", spent=spent, burning_per_hour=0.5)
    accounts: Any = SimpleNamespace(so_far=so_far, budget=Budget(amount=0.0, currency="GBP"))
    shown.gauges.show(facts, {"gpu": Target(spot=3, hold=hold)}, memory, accounts)


def test_nothing_is_shown_before_the_first_look(shown: Shown) -> None:
    assert shown.values() == {}


def test_a_look_shows_pools_work_and_money(shown: Shown) -> None:
    look(shown)
    found = shown.values()
    assert found["dispatcher.leading"] == [({}, 1)]
    nodes = {(a["fusebus.state"], a["fusebus.price.class"]): value for a, value in found["pool.nodes"]}
    assert (nodes["idle", "spot"], nodes["starting", "dedicated"], nodes["running", "spot"]) == (1, 1, 0)
    assert {a["fusebus.pool.name"]: value for a, value in found["pool.readable"]} == {"gpu": 1, "lost": 0}
    assert ({"fusebus.pool.name": "gpu", "fusebus.price.class": "spot"}, 3) in found["pool.wanted.nodes"]
    assert found["work.waiting"] == [({"fusebus.job.kind": "detect"}, 7)]
    assert found["cost.spent"] == [({"fusebus.currency": "GBP"}, 12.0)]


def test_what_is_not_known_has_no_value(shown: Shown) -> None:
    look(shown, spent=None, hold=True, depth=None)
    found = shown.values()
    for name in ("cost.spent", "cost.forecast", "cost.budget", "pool.wanted.nodes", "work.waiting", "work.oldest.age"):
        assert not found.get(name), name


def test_values_end_with_leadership_and_with_looks(shown: Shown) -> None:
    look(shown)
    shown.gauges.clear()
    assert shown.values() == {"dispatcher.leading": [({}, 0)]}
    shown.now = 11.0
    assert shown.values() == {}

"""The metrics that docs/operate.md lists are those that services export; rules and dashboard refer to no other."""

import asyncio
import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.prometheus._mapping import map_unit, sanitize_full_name

from fusebus.stack.stack import SERVICES

pytestmark = pytest.mark.asyncio(loop_scope="session")
OPERATE = Path(__file__).parents[2] / "docs" / "operate.md"
SUFFIXES = ("_total", "_bucket", "_count", "_sum")
NOT_IN_THIS_DELIVERY = {"fusebus.message.redeliveries", "fusebus.cost.forecast"}
"""Only where a lock ran out, or after a while; tests/unit/bus/test_measures.py sees the first."""
OF_PROMETHEUS = {"instance", "job"}
"""Labels of its own."""
OF_MESSAGES = {"messaging.system", "messaging.destination.name", "messaging.destination.subscription.name"}
"""Attributes that the page names once for all metrics of messages."""
PROMETHEUS_SECONDS = 60.0


def exported(observed: Any) -> dict[str, set[str]]:
    """Prometheus' names of all metrics that any service exported, with the names of their labels."""
    found: dict[str, set[str]] = {}
    received = observed.receiver.received
    for name, attributes in received.metrics.items():
        unit = map_unit(received.units[name])
        full = sanitize_full_name(name) + (f"_{unit}" if unit and not name.endswith(unit) else "")
        found[full] = {sanitize_full_name(one) for some in attributes for one in some}
    return found


def bare(name: str) -> str:
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def metrics_in(query: str) -> set[str]:
    plain = re.sub(r"\{[^}]*\}|\b(?:by|on) \([^)]*\)", " ", query)
    return {bare(name) for name in re.findall(r"\b(?:fusebus|messaging)_[a-z_]+", plain)}


def labels_in(query: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric with the labels by which it is chosen or grouped; a metric several times."""
    for name, selector in re.findall(r"(\w+)\{([^}]*)\}", query):
        yield name, set(re.findall(r"(\w+) *(?:=~|!~|!=|=)", selector))
    for group in re.finditer(r"\bby \(([^)]*)\) \(", query):
        end, depth = group.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(query[end], 0)
            end += 1
        for name in re.findall(r"\b(?:fusebus|messaging)_\w+(?=[\s{[)])", query[group.end() : end]):
            yield name, set(re.findall(r"\w+", group[1]))


def assert_labels(query: str, known: dict[str, set[str]]) -> None:
    """No metric is asked for by a label that this metric does not have."""
    rows = documented_attributes().items()
    fails = {sanitize_full_name(name) for name, attributes in rows if "error.type" in attributes}
    for name, labels in labels_in(query):
        if (metric := bare(name)) in known:
            own = known[metric] | ({"le"} if name.endswith("_bucket") else set())
            error = {"error_type"} if metric.removesuffix("_seconds") in fails else set()
            assert labels <= own | error | OF_PROMETHEUS, f"{metric} has no {labels - own}: {query}"


def documented() -> set[str]:
    """The first column of the table in the page for operators."""
    return set(documented_attributes())


def documented_attributes() -> dict[str, set[str]]:
    """By metric, the attributes in its row of that table."""
    row = r"^\| `((?:fusebus|messaging)\.[a-z._]+)` \|[^|]*\|[^|]*\|([^|]*)\|"
    rows = re.findall(row, OPERATE.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`([a-z._]+)`", attributes)) for name, attributes in rows}


async def test_every_metric_is_in_the_operators_table_and_the_other_way_round(observed: Any) -> None:
    names = {name for name in observed.receiver.received.metrics if name.startswith(("fusebus.", "messaging."))}
    assert names <= documented()
    assert documented() - names <= NOT_IN_THIS_DELIVERY


async def test_every_metric_has_the_attributes_of_its_row(observed: Any) -> None:
    wrong = {}
    for name, row in documented_attributes().items():
        attributes = {one for some in observed.receiver.received.metrics.get(name, ()) for one in some} - OF_MESSAGES
        if name not in NOT_IN_THIS_DELIVERY and attributes | {"error.type"} != row | {"error.type"}:
            wrong[name] = attributes  # errors are there only where something failed
    assert not wrong


async def test_a_dead_letter_is_counted_where_it_lies_and_where_it_is_dealt_with(observed: Any) -> None:
    line = r'^fusebus_queue_messages\{fusebus_state="dead_letter",messaging_destination_name="results",.*\} 1\.0$'
    told, deadline = False, time.monotonic() + PROMETHEUS_SECONDS
    while not told and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        page = await asyncio.to_thread(observed.page, "dispatcher")
        told = (
            bool(re.search(line, page, re.M)) and "fusebus.dead_letters.handled" in observed.receiver.received.metrics
        )
    assert told


async def test_a_scrape_shows_what_is_exported(observed: Any) -> None:
    known = exported(observed)
    for service in SERVICES:
        page = observed.scraped[service]
        assert f'service_name="fusebus-{service}"' in page
        names = {bare(line.split()[2]) for line in page.splitlines() if line.startswith("# TYPE ")}
        assert {name for name in names if name.startswith(("fusebus_", "messaging_"))} <= known.keys()
    assert "messaging_process_duration_seconds_bucket" in observed.scraped["ingest"]
    assert 'fusebus_queue_messages{fusebus_state="dead_letter"' in observed.scraped["dispatcher"]
    assert "fusebus_cost_spent" in observed.scraped["dispatcher"]


def queries_of(dashboard: Path) -> list[str]:
    panels = json.loads(dashboard.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


async def test_the_dashboard_asks_only_for_what_is_exported(observed: Any, deployment: Path) -> None:
    known = exported(observed)
    extra = {sanitize_full_name(name) for name in NOT_IN_THIS_DELIVERY}
    queries = queries_of(deployment / "grafana" / "dashboards" / "fusebus.json")
    assert len(queries) > 20
    for query in queries:
        asked = metrics_in(query)
        assert asked, query
        assert asked <= known.keys() | extra, query
        assert_labels(query, known)


async def test_the_alerts_ask_only_for_what_is_exported(observed: Any, deployment: Path) -> None:
    known = exported(observed)
    extra = {sanitize_full_name(name) for name in NOT_IN_THIS_DELIVERY}
    expressions = re.findall(
        r"^ +expr: (.+?)(?=\n +(?:for|labels):)", (deployment / "prometheus" / "alerts.yml").read_text(), re.M | re.S
    )
    assert len(expressions) > 10
    for expression in expressions:
        assert metrics_in(expression) <= known.keys() | extra, expression
        assert_labels(expression, known)


async def test_rules_hold_what_their_unit_tests_say(tool: Callable[[str], str], deployment: Path) -> None:
    promtool = tool("promtool")
    subprocess.run([promtool, "check", "rules", "alerts.yml"], cwd=deployment / "prometheus", check=True)
    subprocess.run([promtool, "test", "rules", "alerts_test.yml"], cwd=deployment / "prometheus", check=True)


async def test_the_scrape_configuration_is_valid(tool: Callable[[str], str], deployment: Path) -> None:
    subprocess.run([tool("promtool"), "check", "config", "prometheus.yml"], cwd=deployment / "prometheus", check=True)


async def test_every_alert_has_a_unit_test_and_a_place_in_the_operators_page(deployment: Path) -> None:
    alerts = re.findall(r"- alert: (\w+)", (deployment / "prometheus" / "alerts.yml").read_text())
    tests, page = (deployment / "prometheus" / "alerts_test.yml").read_text(), OPERATE.read_text()
    assert len(set(alerts)) == len(alerts)
    for alert in alerts:
        assert f"alertname: {alert}" in tests, alert
        assert f"`{alert}`" in page, alert


@contextmanager
def prometheus(program: str, folder: Path, targets: dict[str, int], rules: Path) -> Iterator[str]:
    """Debian's Prometheus, scraping these ports by service."""
    jobs = "".join(
        f"  - job_name: fusebus-{name}\n    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
        for name, port in targets.items()
    )
    head = "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
    config = folder / "prometheus.yml"
    config.write_text(f"{head}rule_files: ['{rules}']\nscrape_configs:\n{jobs}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def ask(address: str, path: str, **parameters: str) -> Any:
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{address}/api/v1/{path}?{query}", timeout=10) as answer:
        told = json.load(answer)
    assert told["status"] == "success", told
    return told["data"]


async def test_debians_prometheus_scrapes_the_services_and_answers_the_dashboard(
    observed: Any, tool: Callable[[str], str], deployment: Path, tmp_path: Path
) -> None:
    ports = {name: observed.port(name) for name in SERVICES}
    with prometheus(tool("prometheus"), tmp_path, ports, deployment / "prometheus" / "alerts.yml") as address:
        deadline = time.monotonic() + PROMETHEUS_SECONDS
        up: dict[str, str] = {}
        while time.monotonic() < deadline and set(up.values()) != {"up"}:
            await asyncio.sleep(0.5)
            try:
                active = ask(address, "targets", state="active")["activeTargets"]
            except OSError:
                continue
            up = {target["labels"]["job"]: target["health"] for target in active}
        assert up == {f"fusebus-{name}": "up" for name in SERVICES}, up
        while time.monotonic() < deadline and len(ask(address, "query", query="fusebus_queue_messages")["result"]) < 2:
            await asyncio.sleep(0.5)
        for query in queries_of(deployment / "grafana" / "dashboards" / "fusebus.json"):
            plain = query.replace("$__rate_interval", "1m").replace("$__range", "1h")
            ask(address, "query", query=plain)  # a query that Prometheus can't read is a 400
        value = ask(address, "query", query="sum(fusebus_ingest_uploads_total)")["result"][0]["value"][1]
        assert int(value) == len(observed.delivered.sent)
        rules = ask(address, "rules")["groups"]
        assert all(rule["health"] in ("ok", "unknown") for group in rules for rule in group["rules"])

"""The bill through the real SDK against an HTTP server that answers as Cost Management does, and the drift."""

from datetime import date

import pytest
from aiohttp import web

from fusebus.costs.bill import TRIES, BillError, read_bill
from fusebus.costs.drift import NODES, SERVICES, Billed, Metered, compare, total


async def read(served, month: str = "2026-11") -> list[Billed]:
    return await read_bill(served.scope, month, url=served.url, first_pause_seconds=0.01)


async def test_all_pages_of_a_month_are_read_by_day_and_service(cost_management) -> None:
    found = await read(cost_management)
    assert found[0] == Billed(day="2026-11-17", service="Virtual Machines", cost=10.5, currency="GBP")
    assert len(found) == 6 and sum(line.cost for line in found) == 33
    (first_query, body), (second_query, same_body), _ = cost_management.asked
    assert "$skiptoken" not in first_query and second_query["$skiptoken"] == "2"
    assert body == same_body
    assert (body["type"], body["timeframe"], body["dataset"]["granularity"]) == ("ActualCost", "Custom", "Daily")
    assert body["timePeriod"]["from"].startswith("2026-11-01T00:00:00")
    assert body["timePeriod"]["to"].startswith("2026-11-30T23:59:59")
    assert body["dataset"]["grouping"] == [{"type": "Dimension", "name": "ServiceName"}]


async def test_columns_are_taken_by_name_not_by_place(cost_management) -> None:
    cost_management.columns = ("Currency", "ServiceName", "UsageDate", "Cost")
    cost_management.rows = [["GBP", "Storage", "2026-11-17T00:00:00", 1.25]]
    assert await read(cost_management) == [Billed(day="2026-11-17", service="Storage", cost=1.25, currency="GBP")]


async def test_throttling_is_waited_for_as_long_as_its_own_header_says(cost_management) -> None:
    header = "x-ms-ratelimit-microsoft.costmanagement-entity-retry-after"
    cost_management.failures = [web.Response(status=429, headers={header: "1"}), web.Response(status=503)]
    assert len(await read(cost_management)) == 6


@pytest.mark.parametrize(
    ("answer", "tries", "said"),
    [
        (lambda: web.Response(status=500), TRIES, "can't be read"),
        (
            lambda: web.json_response({"error": {"code": "RBACAccessDenied", "message": "no role"}}, status=401),
            1,
            "no role",
        ),
        (lambda: web.json_response({"properties": {"columns": [{"name": "What"}], "rows": []}}), 1, "columns what"),
        (lambda: web.Response(status=204), 1, "has no bill"),
        (lambda: web.json_response({"properties": {"columns": [], "rows": []}}), 1, "form that is not known"),
    ],
    ids=["down", "not allowed", "other columns", "nothing", "no columns"],
)
async def test_what_can_not_be_read_is_said(cost_management, answer, tries: int, said: str) -> None:
    cost_management.failures = [answer() for _ in range(TRIES)]
    with pytest.raises(BillError, match=said):
        await read(cost_management)
    assert len(cost_management.asked) == tries


async def test_nobody_there_is_said(cost_management) -> None:
    cost_management.url = "http://127.0.0.1:1"
    with pytest.raises(BillError, match="can't be read"):
        await read(cost_management)


def billed(day: int, cost: float, service: str = "Virtual Machines", currency: str = "GBP") -> Billed:
    return Billed(day=f"2026-11-{day:02}", service=service, cost=cost, currency=currency)


METERED = {f"2026-11-{day}": Metered(nodes=10, services=0.5) for day in range(16, 21)}


def test_drift_is_shown_by_day_and_what_is_not_billed_yet_is_unknown_not_zero() -> None:
    lines, foreign = compare(
        METERED,
        [billed(17, 12.5), billed(17, 0.4, "Service Bus"), billed(17, 0.2, "Storage"), billed(19, 4)],
        "GBP",
        date(2026, 11, 21),
    )
    nodes = {line.day: line for line in lines if line.kind == NODES}
    services = {line.day: line for line in lines if line.kind == SERVICES}
    assert nodes["2026-11-17"].share == pytest.approx(0.25)
    assert services["2026-11-17"].drift == pytest.approx(0.1)
    assert nodes["2026-11-16"].billed == 0, "a later day is billed, so this one was free"
    assert nodes["2026-11-20"].billed is None and nodes["2026-11-20"].drift is None
    assert foreign == set()


def test_only_settled_days_with_a_large_drift_are_worth_a_look() -> None:
    lines, _ = compare(METERED, [billed(16, 10.5), billed(17, 12.5), billed(19, 4)], "GBP", date(2026, 11, 21))
    assert {(line.day, line.kind) for line in lines if line.worth_a_look} == {("2026-11-17", NODES)}


def test_a_months_drift_counts_only_days_that_both_sides_know() -> None:
    lines, _ = compare(METERED, [billed(16, 10), billed(17, 12)], "GBP", date(2026, 11, 25))
    found = total(lines, "2026-11", NODES)
    assert (found.metered, found.billed, found.drift, found.settled) == (20, 22, 2, True)
    assert total([], "2026-11", NODES).billed is None


def test_a_bill_in_another_currency_is_not_compared_but_named() -> None:
    lines, foreign = compare(METERED, [billed(17, 12, currency="USD")], "GBP", date(2026, 11, 25))
    assert foreign == {"USD"} and all(line.billed is None for line in lines)

"""Reads the bill of a scope by day and service from Cost Management (azure-mgmt-costmanagement)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.costmanagement import models
from azure.mgmt.costmanagement.aio import CostManagementClient

from fusebus.costs.drift import Billed
from fusebus.costs.forecast import month_bounds

MOST_PAGES = 20  # of one month; a page has up to 1,000 rows, a month a few hundred
TRIES = 4  # of one page: Cost Management takes few requests a minute and says so with 429
PAGE_SECONDS = 120.0  # for one try
FIRST_PAUSE_SECONDS = 5.0  # doubled with each further try
LONGEST_PAUSE_SECONDS = 120.0  # also of what the service asks for
PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
RETRY_HEADERS = (
    "x-ms-ratelimit-microsoft.costmanagement-entity-retry-after",
    "x-ms-ratelimit-microsoft.costmanagement-tenant-retry-after",
    "x-ms-ratelimit-microsoft.costmanagement-client-retry-after",
    "x-ms-ratelimit-microsoft.costmanagement-qpu-retry-after",
    "retry-after",
)


class BillError(Exception):
    """The bill could not be read; what was read before stays."""


class _NoToken:
    """ARM's client insists on a credential; over plain http none may be sent."""

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken("none", int(time.time()) + 3600)

    async def close(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> _NoToken:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""


async def read_bill(
    scope: str, month: str, *, url: str = "", first_pause_seconds: float = FIRST_PAUSE_SECONDS
) -> list[Billed]:
    """The actual cost of `scope` in a month (YYYY-MM), by day and service. Raises BillError.

    `scope`: `/subscriptions/<id>/resourceGroups/<name>`. `url`: another service than Azure's, without login. The
    identity needs the role Cost Management Reader there.
    """
    if url:
        local = CostManagementClient(
            _NoToken(), base_url=url, authentication_policy=SansIOHTTPPolicy[Any, Any](), retry_total=0
        )
        async with local as client:
            return await _pages(client, scope.strip("/"), month, first_pause_seconds)
    async with DefaultAzureCredential() as credential, CostManagementClient(credential, retry_total=0) as client:
        return await _pages(client, scope.strip("/"), month, first_pause_seconds)


def definition(month: str) -> models.QueryDefinition:
    """The query: actual cost by day and service name."""
    begin, end = month_bounds(month)
    return models.QueryDefinition(
        type=models.ExportType.ACTUAL_COST,
        timeframe=models.TimeframeType.CUSTOM,
        time_period=models.QueryTimePeriod(from_property=begin, to=end - timedelta(seconds=1)),
        dataset=models.QueryDataset(
            granularity=models.GranularityType.DAILY,
            aggregation={"totalCost": models.QueryAggregation(name="Cost", function=models.FunctionType.SUM)},
            grouping=[models.QueryGrouping(type=models.QueryColumnType.DIMENSION, name="ServiceName")],
        ),
    )


async def _pages(client: CostManagementClient, scope: str, month: str, first_pause_seconds: float) -> list[Billed]:
    """All rows. A further page is the same query with the token that the page before has in its link."""
    asked = definition(month)
    found: list[Billed] = []
    token = ""
    for _ in range(MOST_PAGES):
        page = await _page(client, scope, asked, token, first_pause_seconds)
        found += _rows(page)
        if not page.next_link:
            return found
        token = parse_qs(urlsplit(page.next_link).query).get("$skiptoken", [""])[0]
        if not token:
            raise BillError(f"the bill's next page has no $skiptoken: {page.next_link[:200]!r}")
    raise BillError(f"the bill of {month} has more than {MOST_PAGES} pages")


async def _page(
    client: CostManagementClient, scope: str, asked: models.QueryDefinition, token: str, first_pause_seconds: float
) -> models.QueryResult:
    """One page; passing failures are tried again."""
    problem = ""
    for number in range(TRIES):
        pause = first_pause_seconds * 2**number
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                found = await client.query.usage(scope, asked, params={"$skiptoken": token} if token else {})
                if found is None:
                    raise BillError(f"Cost Management has no bill for {scope}")
                return found
        except HttpResponseError as error:
            problem = str(error.message)[:300]
            if error.status_code not in PASSING_STATUS:
                break
            pause = max(pause, _asked_pause(getattr(error.response, "headers", {})))
        except TimeoutError:
            problem = f"Cost Management did not answer within {PAGE_SECONDS:g} s"
        except AzureError as error:
            problem = str(error.message)[:300]
        if number + 1 < TRIES:
            await asyncio.sleep(min(pause, LONGEST_PAUSE_SECONDS))
    raise BillError(f"the bill of {scope} can't be read: {problem}")


def _asked_pause(headers: Mapping[str, str]) -> float:
    """Seconds, the longest that any header asks for."""
    asked = [headers.get(name, "") for name in RETRY_HEADERS]
    return max((float(value) for value in asked if value.isdigit()), default=0.0)


def _rows(page: models.QueryResult) -> list[Billed]:
    """Rows are lists in the order of the columns, which the service chooses."""
    names = [str(column.name or "").lower() for column in page.columns or []]
    try:
        day, service, currency = (names.index(name) for name in ("usagedate", "servicename", "currency"))
        cost = next(index for index, name in enumerate(names) if name in ("totalcost", "cost", "pretaxcost"))
        return [
            Billed(day=_day(row[day]), service=str(row[service]), cost=float(row[cost]), currency=str(row[currency]))
            for row in page.rows or []
        ]
    except (ValueError, StopIteration, IndexError, TypeError) as error:
        raise BillError(f"the bill has a form that is not known, columns {', '.join(names)[:200]}: {error}") from error


def _day(value: object) -> str:
    """YYYY-MM-DD of 20261121 or of an ISO time. Raises ValueError."""
    text = str(value)
    form = "%Y%m%d" if text.isdigit() else "%Y-%m-%d"
    return str(datetime.strptime(text[:10], form).replace(tzinfo=UTC).date())

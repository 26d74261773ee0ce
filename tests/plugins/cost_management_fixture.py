"""A real HTTP server that answers Cost Management's usage query as Azure does: pages, throttling, refusals."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

SCOPE = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/fusebus"


@dataclass
class CostManagement:
    """What the server has, how it fails, and what it was asked."""

    url: str = ""
    scope: str = SCOPE
    rows: list[list[Any]] = field(default_factory=list)
    """Cost, usage date as a number, service name, currency."""
    columns: tuple[str, ...] = ("totalCost", "UsageDate", "ServiceName", "Currency")
    page_size: int = 2
    failures: list[web.Response] = field(default_factory=list)
    asked: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """One page."""
        self.asked.append((dict(request.query), await request.json()))
        if self.failures:
            return self.failures.pop(0)
        skip = int(request.query.get("$skiptoken", "0"))
        link = f"https://management.azure.com{request.path}?api-version=2021-10-01&$skiptoken={skip + self.page_size}"
        return web.json_response(
            {
                "id": f"{SCOPE.strip('/')}/providers/Microsoft.CostManagement/query/1",
                "name": "1",
                "type": "Microsoft.CostManagement/query",
                "properties": {
                    "nextLink": link if skip + self.page_size < len(self.rows) else None,
                    "columns": [{"name": name, "type": "String"} for name in self.columns],
                    "rows": self.rows[skip : skip + self.page_size],
                },
            }
        )


@pytest.fixture
async def cost_management() -> AsyncIterator[CostManagement]:
    """Listening on 127.0.0.1, with three days of two services."""
    served = CostManagement()
    for day in (20261117, 20261118, 20261119):
        served.rows += [[10.5, day, "Virtual Machines", "GBP"], [0.5, day, "Service Bus", "GBP"]]
    application = web.Application()
    application.router.add_post(f"{SCOPE}/providers/Microsoft.CostManagement/query", served.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()

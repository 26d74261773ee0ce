"""/healthz (is it making progress?), /readyz (may work be sent to it?) and /metrics over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import msgspec

from fusebus.host.telemetry import Page

if TYPE_CHECKING:
    from aiohttp import web


class HealthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `health`."""

    host: Annotated[str, msgspec.Meta(description="Address to listen on; containers need 0.0.0.0.")] = "127.0.0.1"
    port: Annotated[
        int, msgspec.Meta(ge=0, le=65535, description="Port of /healthz, /readyz and /metrics; 0 turns them off.")
    ] = 0


class Health:
    """What this process says of itself: liveness is progress, not an open port."""

    def __init__(self, settings: HealthSettings, scrape: Callable[[], Page] | None = None) -> None:
        """`scrape`: what /metrics answers; None: there is no such page."""
        self.ready = False
        self._scrape = scrape
        self._settings = settings
        self._checks: dict[str, Callable[[], bool]] = {}
        self._runner: web.AppRunner | None = None

    def liveness(self, name: str, check: Callable[[], bool]) -> None:
        """Register a check that must stay true; a false one makes the orchestrator restart the process."""
        self._checks[name] = check

    def report(self) -> dict[str, bool]:
        """Each liveness check's present answer."""
        return {name: check() for name, check in self._checks.items()}

    async def start(self) -> None:
        """Listen, if a port is set. Raises OSError where the port is taken."""
        if not self._settings.port:
            return
        from aiohttp import web  # only where a port is set: it takes a while to load

        app = web.Application()
        app.add_routes([web.get("/healthz", self._healthz), web.get("/readyz", self._readyz)])
        if self._scrape is not None:
            app.add_routes([web.get("/metrics", self._metrics)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        from aiohttp import web

        report = self.report()
        return web.json_response(report, status=200 if all(report.values()) else 503)

    async def _readyz(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.json_response({"ready": self.ready}, status=200 if self.ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        from aiohttp import web

        assert self._scrape is not None
        page = self._scrape()
        return web.Response(body=page.body, headers={"Content-Type": page.content_type})

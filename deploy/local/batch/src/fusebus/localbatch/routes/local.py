"""What is not of Batch: the meter, and the administration of faults."""

from __future__ import annotations

from aiohttp import web

from fusebus.localbatch.fault_orders import active, clear, inject
from fusebus.localbatch.routes import answers
from fusebus.localbatch.routes.front import Front


class _Local:
    def __init__(self, front: Front) -> None:
        self._state, self._requests = front.state, front.request_faults

    async def meter(self, request: web.Request) -> web.Response:
        """Node-seconds that would be on the bill by now."""
        billed = self._state.billed_node_seconds(request.match_info["pool"])
        return web.json_response({"dedicated": billed[True], "lowPriority": billed[False]})

    async def preempt(self, request: web.Request) -> web.Response:
        """Take the machine of a Spot node away at once."""
        self._state.preempt(request.match_info["pool"], request.match_info["node"])
        return answers.plain(204)

    async def faults(self, request: web.Request) -> web.Response:
        return web.json_response(active(self._state, self._requests))

    async def inject(self, request: web.Request) -> web.Response:
        """One fault: its kind under `fault`, its fields beside it."""
        return web.json_response(inject(self._state, self._requests, await answers.body_of(request)))

    async def clear(self, request: web.Request) -> web.Response:
        """End all faults that last; what has happened has happened."""
        clear(self._state, self._requests)
        return answers.plain(204)


def routes(front: Front) -> list[web.RouteDef]:
    local = _Local(front)
    return [
        web.get("/local/pools/{pool}/meter", local.meter),
        web.post("/local/pools/{pool}/nodes/{node}/preempt", local.preempt),
        web.get("/local/faults", local.faults),
        web.post("/local/faults", local.inject),
        web.delete("/local/faults", local.clear),
    ]

"""Nodes: list, get, restart, scheduling."""

from __future__ import annotations

from aiohttp import web

from fusebus.localbatch import views
from fusebus.localbatch.entities import BatchProblem, Deallocation
from fusebus.localbatch.routes import answers
from fusebus.localbatch.routes.front import Front
from fusebus.localbatch.values import deallocation


class _Nodes:
    def __init__(self, front: Front) -> None:
        self._state = front.state

    async def list(self, request: web.Request) -> web.Response:
        pool, base = self._state.pool(request.match_info["pool"]), answers.base_of(request)
        return answers.listing(request, [views.node_view(node, pool, base) for node in pool.nodes.values()])

    async def get(self, request: web.Request) -> web.Response:
        pool = self._state.pool(request.match_info["pool"])
        node = self._state.node(pool.id, request.match_info["node"])
        return answers.one(request, views.node_view(node, pool, answers.base_of(request)))

    async def reboot(self, request: web.Request) -> web.Response:
        option = await _option(request, "nodeRebootOption")
        self._state.reboot(*_place(request), option)
        return answers.plain(202)

    async def reimage(self, request: web.Request) -> web.Response:
        option = await _option(request, "nodeReimageOption")
        self._state.reboot(*_place(request), option, reimage=True)
        return answers.plain(202)

    async def disable_scheduling(self, request: web.Request) -> web.Response:
        option = await _option(request, "nodeDisableSchedulingOption")
        self._state.disable_scheduling(*_place(request), option)
        return answers.plain(200)

    async def enable_scheduling(self, request: web.Request) -> web.Response:
        self._state.enable_scheduling(*_place(request))
        return answers.plain(200)


def _place(request: web.Request) -> tuple[str, str]:
    return request.match_info["pool"], request.match_info["node"]


async def _option(request: web.Request, name: str) -> Deallocation:
    value = (await answers.body_of(request)).get(name)
    if value is not None and not isinstance(value, str):
        raise BatchProblem(400, "InvalidPropertyValue", f"{name} must be text.")
    return deallocation(value)


def routes(front: Front) -> list[web.RouteDef]:
    nodes, one = _Nodes(front), "/pools/{pool}/nodes/{node}"
    return [
        web.get("/pools/{pool}/nodes", nodes.list),
        web.get(one, nodes.get),
        web.post(f"{one}/reboot", nodes.reboot),
        web.post(f"{one}/reimage", nodes.reimage),
        web.post(f"{one}/disablescheduling", nodes.disable_scheduling),
        web.post(f"{one}/enablescheduling", nodes.enable_scheduling),
    ]

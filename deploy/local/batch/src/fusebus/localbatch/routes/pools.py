"""The data plane's pools: also creation, resizes and changes, which azure-batch can do as well as ARM."""

from __future__ import annotations

from aiohttp import web

from fusebus.localbatch import views
from fusebus.localbatch.entities import BatchProblem, Pool
from fusebus.localbatch.routes import answers
from fusebus.localbatch.routes.front import Front
from fusebus.localbatch.values import deallocation

CHANGES = ("displayName", "startTask", "metadata", "taskSlotsPerNode", "networkConfiguration")


class _Pools:
    def __init__(self, front: Front) -> None:
        self._state = front.state

    def _pool(self, request: web.Request) -> Pool:
        """The pool of the path, if the conditions of the request hold for it."""
        pool = self._state.pool(request.match_info["pool"])
        answers.check_conditions(request, pool.etag, pool.modified)
        return pool

    async def create(self, request: web.Request) -> web.Response:
        body = await answers.body_of(request)
        if body.get("id") in self._state.pools:
            raise BatchProblem(409, "PoolExists", f"The specified pool {body['id']} already exists.")
        pool = self._state.create_pool(str(body.get("id") or ""), views.account_pool_properties(body))
        place = f"{answers.base_of(request)}/pools/{pool.id}"
        return answers.plain(201, {"Location": place, "ETag": pool.etag})

    async def get(self, request: web.Request) -> web.Response:
        pool = self._pool(request)
        return answers.one(request, views.pool_view(pool, answers.base_of(request)), pool.etag)

    async def list(self, request: web.Request) -> web.Response:
        base = answers.base_of(request)
        return answers.listing(request, [views.pool_view(pool, base) for pool in self._state.pools.values()])

    async def counts(self, request: web.Request) -> web.Response:
        found = [views.node_counts(pool) for pool in self._state.pools.values()]
        return answers.listing(request, found, key="poolId")

    async def change(self, request: web.Request) -> web.Response:
        """Both kinds of change: PATCH, and POST of all properties."""
        pool, body = self._pool(request), await answers.body_of(request)
        given = views.account_pool_properties({name: body[name] for name in CHANGES if name in body})
        self._state.update_pool(pool.id, given)
        return answers.plain(200 if request.method == "PATCH" else 204, {"ETag": pool.etag})

    async def resize(self, request: web.Request) -> web.Response:
        pool, body = self._pool(request), await answers.body_of(request)
        given = views.account_pool_properties(body)
        if "scaleSettings" not in given:
            raise BatchProblem(400, "MissingRequiredProperty", "A resize needs a target.")
        fixed = given["scaleSettings"]["fixedScale"]
        # A kind that is not told keeps its target.
        fixed.setdefault("targetDedicatedNodes", pool.target_dedicated)
        fixed.setdefault("targetLowPriorityNodes", pool.target_spot)
        self._state.update_pool(pool.id, given)
        return answers.plain(202, {"ETag": pool.etag})

    async def stop_resize(self, request: web.Request) -> web.Response:
        pool = self._state.stop_resize(self._pool(request).id)
        return answers.plain(202, {"ETag": pool.etag})

    async def delete(self, request: web.Request) -> web.Response:
        self._state.delete_pool(self._pool(request).id)
        return answers.plain(202)

    async def remove_nodes(self, request: web.Request) -> web.Response:
        pool, body = self._pool(request), await answers.body_of(request)
        option, timeout = deallocation(body.get("nodeDeallocationOption")), body.get("resizeTimeout")
        self._state.remove_nodes(pool.id, body.get("nodeList") or [], option, timeout=timeout)
        return answers.plain(202, {"ETag": pool.etag})


def routes(front: Front) -> list[web.RouteDef]:
    pools = _Pools(front)
    return [
        web.post("/pools", pools.create),
        web.get("/pools", pools.list),
        web.get("/pools/{pool}", pools.get),
        web.patch("/pools/{pool}", pools.change),
        web.delete("/pools/{pool}", pools.delete),
        web.post("/pools/{pool}/updateproperties", pools.change),
        web.post("/pools/{pool}/resize", pools.resize),
        web.post("/pools/{pool}/stopresize", pools.stop_resize),
        web.post("/pools/{pool}/removenodes", pools.remove_nodes),
        web.get("/nodecounts", pools.counts),
    ]

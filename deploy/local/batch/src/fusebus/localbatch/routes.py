"""The HTTP face: ARM pool calls and data-plane calls, each one event of the state machine and a view of the outcome."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import web

from fusebus.localbatch import odata, views
from fusebus.localbatch.entities import BatchProblem
from fusebus.localbatch.runner import ProcessRunner
from fusebus.localbatch.state import BatchState
from fusebus.localbatch.values import deallocation

ACCOUNT = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Batch/batchAccounts/{account}"
CORES_PER_NODE = 4  # of the default NC4as_T4_v3: an account's quota is told in cores
UNLIMITED_CORES = 1_000_000
MAX_BODY_BYTES = 4 * 1024 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def application(state: BatchState, runner: ProcessRunner, step: Callable[[], None]) -> web.Application:
    """`step` is called after every request: it carries out what the state machine then wants done."""

    @web.middleware
    async def events(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        step()  # what is due by now comes before the request
        try:
            return await handler(request)
        except BatchProblem as problem:
            return _refusal(request, problem)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            what = f"{request.method} {request.path} is not among the calls that the local Batch answers."
            return _refusal(request, BatchProblem(501, "NotImplemented", what))
        finally:
            step()

    app = web.Application(middlewares=[events], client_max_size=MAX_BODY_BYTES)
    app.add_routes([*_arm_routes(state), *_pool_routes(state), *_job_routes(state), *_task_routes(state, runner)])
    return app


def _arm_routes(state: BatchState) -> list[web.RouteDef]:
    def view(request: web.Request, pool_id: str, status: int = 200) -> web.Response:
        pool = state.pool(pool_id)
        root = request.path.split("/pools")[0]
        return web.json_response(
            views.arm_pool(pool, f"{root}/pools/{pool_id}"), status=status, headers={"ETag": pool.etag}
        )

    async def account(request: web.Request) -> web.Response:
        capacity = state.limits.capacity
        cores = UNLIMITED_CORES if capacity is None else capacity * CORES_PER_NODE
        properties = {
            "accountEndpoint": request.host,
            "provisioningState": "Succeeded",
            "poolAllocationMode": "BatchService",
            "dedicatedCoreQuota": cores,
            "lowPriorityCoreQuota": cores,
            "dedicatedCoreQuotaPerVMFamilyEnforced": False,
            "poolQuota": 100,
            "activeJobAndJobScheduleQuota": 300,
        }
        name = request.match_info["account"]
        kind = "Microsoft.Batch/batchAccounts"
        body = {"id": request.path, "name": name, "type": kind, "location": "local", "properties": properties}
        return web.json_response(body)

    async def listing(request: web.Request) -> web.Response:
        pools = [views.arm_pool(pool, f"{request.path}/{pool.id}") for pool in state.pools.values()]
        items, following = odata.page(odata.matching(pools, request.query.get("$filter")), request.query)
        return web.json_response({"value": items, **_next_link(request, following, "nextLink")})

    async def get(request: web.Request) -> web.Response:
        return view(request, request.match_info["pool"])

    async def put(request: web.Request) -> web.Response:
        body, pool_id = await _body(request), request.match_info["pool"]
        only_new = request.headers.get("If-None-Match") == "*"
        if "If-Match" in request.headers:
            state.update_pool(pool_id, body.get("properties") or {}, request.headers["If-Match"])
        else:
            state.create_pool(pool_id, body.get("properties") or {}, only_new=only_new)
        return view(request, pool_id)

    async def patch(request: web.Request) -> web.Response:
        body, pool_id = await _body(request), request.match_info["pool"]
        state.update_pool(pool_id, body.get("properties") or {}, request.headers.get("If-Match"))
        return view(request, pool_id)

    async def stop_resize(request: web.Request) -> web.Response:
        state.stop_resize(request.match_info["pool"])
        return view(request, request.match_info["pool"])

    async def delete(request: web.Request) -> web.Response:
        if request.match_info["pool"] not in state.pools:
            return web.Response(status=204)
        state.delete_pool(request.match_info["pool"])
        place = f"{_base(request)}{request.path}/deletion?{request.query_string}"
        return web.Response(status=202, headers={"Location": place, "Retry-After": "1"})

    async def deletion(request: web.Request) -> web.Response:
        gone = request.match_info["pool"] not in state.pools
        return web.Response(status=200) if gone else web.Response(status=202, headers={"Retry-After": "1"})

    one = f"{ACCOUNT}/pools/{{pool}}"
    return [
        web.get(ACCOUNT, account),
        web.get(f"{ACCOUNT}/pools", listing),
        web.get(one, get),
        web.put(one, put),
        web.patch(one, patch),
        web.delete(one, delete),
        web.get(f"{one}/deletion", deletion),
        web.post(f"{one}/stopResize", stop_resize),
    ]


def _pool_routes(state: BatchState) -> list[web.RouteDef]:
    async def get_pool(request: web.Request) -> web.Response:
        pool = state.pool(request.match_info["pool"])
        return _json(views.pool_view(pool, _base(request)), headers={"ETag": pool.etag})

    async def list_pools(request: web.Request) -> web.Response:
        return _listing(request, [views.pool_view(pool, _base(request)) for pool in state.pools.values()])

    async def counts(request: web.Request) -> web.Response:
        return _listing(request, [views.node_counts(pool) for pool in state.pools.values()])

    async def list_nodes(request: web.Request) -> web.Response:
        pool = state.pool(request.match_info["pool"])
        return _listing(request, [views.node_view(node, pool, _base(request)) for node in pool.nodes.values()])

    async def get_node(request: web.Request) -> web.Response:
        pool = state.pool(request.match_info["pool"])
        return _json(views.node_view(state.node(pool.id, request.match_info["node"]), pool, _base(request)))

    async def remove_nodes(request: web.Request) -> web.Response:
        body = await _body(request)
        option = deallocation(body.get("nodeDeallocationOption"))
        state.remove_nodes(
            request.match_info["pool"], body.get("nodeList") or [], option, request.headers.get("If-Match")
        )
        return _json(None, status=202)

    async def meter(request: web.Request) -> web.Response:
        """Not of Batch: node-seconds that would be on the bill by now."""
        billed = state.billed_node_seconds(request.match_info["pool"])
        return web.json_response({"dedicated": billed[True], "lowPriority": billed[False]})

    async def preempt(request: web.Request) -> web.Response:
        """Not of Batch: take the machine of a Spot node away, as the market would."""
        state.preempt(request.match_info["pool"], request.match_info["node"])
        return web.Response(status=204)

    return [
        web.get("/pools", list_pools),
        web.get("/pools/{pool}", get_pool),
        web.get("/nodecounts", counts),
        web.get("/pools/{pool}/nodes", list_nodes),
        web.get("/pools/{pool}/nodes/{node}", get_node),
        web.post("/pools/{pool}/removenodes", remove_nodes),
        web.get("/local/pools/{pool}/meter", meter),
        web.post("/local/pools/{pool}/nodes/{node}/preempt", preempt),
    ]


def _job_routes(state: BatchState) -> list[web.RouteDef]:
    async def create(request: web.Request) -> web.Response:
        job = state.create_job(await _body(request))
        return _json(None, status=201, headers={"Location": f"{_base(request)}/jobs/{job.id}", "ETag": job.etag})

    async def listing(request: web.Request) -> web.Response:
        return _listing(request, [views.job_view(job, _base(request)) for job in state.jobs.values()])

    async def get(request: web.Request) -> web.Response:
        job = state.job(request.match_info["job"])
        return _json(views.job_view(job, _base(request)), headers={"ETag": job.etag})

    async def terminate(request: web.Request) -> web.Response:
        body = await _body(request)
        state.terminate_job(request.match_info["job"], body.get("terminateReason") or "UserTerminate")
        return _json(None, status=202)

    async def delete(request: web.Request) -> web.Response:
        state.delete_job(request.match_info["job"])
        return _json(None, status=202)

    async def counts(request: web.Request) -> web.Response:
        return _json(views.task_counts(state.job(request.match_info["job"])))

    return [
        web.post("/jobs", create),
        web.get("/jobs", listing),
        web.get("/jobs/{job}", get),
        web.delete("/jobs/{job}", delete),
        web.post("/jobs/{job}/terminate", terminate),
        web.get("/jobs/{job}/taskcounts", counts),
    ]


def _task_routes(state: BatchState, runner: ProcessRunner) -> list[web.RouteDef]:
    async def create(request: web.Request) -> web.Response:
        task = state.create_task(request.match_info["job"], await _body(request))
        place = f"{_base(request)}/jobs/{task.job.id}/tasks/{task.id}"
        return _json(None, status=201, headers={"Location": place, "ETag": task.etag})

    async def create_many(request: web.Request) -> web.Response:
        job = state.job(request.match_info["job"])
        results = [_added(state, job.id, task, _base(request)) for task in (await _body(request)).get("value") or []]
        return _json({"value": results})

    async def listing(request: web.Request) -> web.Response:
        job = state.job(request.match_info["job"])
        return _listing(request, [views.task_view(task, _base(request)) for task in job.tasks.values()])

    async def get(request: web.Request) -> web.Response:
        task = state.task(request.match_info["job"], request.match_info["task"])
        return _json(views.task_view(task, _base(request)), headers={"ETag": task.etag})

    async def delete(request: web.Request) -> web.Response:
        state.delete_task(request.match_info["job"], request.match_info["task"])
        return _json(None)

    async def terminate(request: web.Request) -> web.Response:
        state.terminate_task(request.match_info["job"], request.match_info["task"])
        return _json(None, status=204)

    def folder_of(request: web.Request) -> Path:
        task = state.task(request.match_info["job"], request.match_info["task"])
        return runner.task_dir(task.job.id, task.id)

    async def files(request: web.Request) -> web.Response:
        folder, recursive = folder_of(request), request.query.get("recursive") == "true"
        found = sorted(folder.rglob("*") if recursive else folder.glob("*"))
        return _listing(request, [_file_view(path, folder, f"{_base(request)}{request.path}") for path in found])

    async def file(request: web.Request) -> web.Response:
        """HEAD and GET of one output file; `ocp-range` reads a part of it."""
        folder = folder_of(request)
        path = (folder / request.match_info["path"]).resolve()
        if not path.is_file() or not path.is_relative_to(folder.resolve()):
            raise BatchProblem(404, "FileNotFound", "The specified file does not exist.")
        content = path.read_bytes()
        asked = _RANGE.fullmatch(request.headers.get("ocp-range", ""))
        if asked:
            content = content[int(asked[1]) : int(asked[2]) + 1 if asked[2] else None]
        headers = {
            "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True),
            "ocp-creation-time": formatdate(path.stat().st_ctime, usegmt=True),
            "ocp-batch-file-isdirectory": "false",
            "ocp-batch-file-url": f"{_base(request)}{request.path}",
            "ocp-batch-file-mode": f"0o{path.stat().st_mode:o}",
        }
        return web.Response(body=content, headers=headers, content_type="application/octet-stream")

    one = "/jobs/{job}/tasks/{task}"
    return [
        web.post("/jobs/{job}/tasks", create),
        web.post("/jobs/{job}/addtaskcollection", create_many),
        web.get("/jobs/{job}/tasks", listing),
        web.get(one, get),
        web.delete(one, delete),
        web.post(f"{one}/terminate", terminate),
        web.get(f"{one}/files", files),
        web.get(f"{one}/files/{{path:.+}}", file),
    ]


def _added(state: BatchState, job_id: str, body: Mapping[str, Any], base: str) -> dict[str, Any]:
    """One line of the answer to a collection: each task stands or fails by itself."""
    task_id = str(body.get("id"))
    try:
        task = state.create_task(job_id, body)
    except BatchProblem as problem:
        return {"status": "clienterror", "taskId": task_id, "error": _error_body(problem)}
    return {
        "status": "success",
        "taskId": task_id,
        "eTag": task.etag,
        "location": f"{base}/jobs/{job_id}/tasks/{task_id}",
    }


def _file_view(path: Path, folder: Path, base: str) -> dict[str, Any]:
    name, facts = path.relative_to(folder).as_posix(), path.stat()
    view: dict[str, Any] = {"name": name, "url": f"{base}/{name}", "isDirectory": path.is_dir()}
    if not path.is_dir():
        times = {"creationTime": views.time_text(facts.st_ctime), "lastModified": views.time_text(facts.st_mtime)}
        view["properties"] = {"contentLength": str(facts.st_size), **times}
    return view


async def _body(request: web.Request) -> dict[str, Any]:
    text = await request.text()
    if not text.strip():
        return {}
    try:
        body = json.loads(text)
    except ValueError as error:
        raise BatchProblem(400, "InvalidRequestBody", "The body is not JSON.") from error
    if not isinstance(body, dict):
        raise BatchProblem(400, "InvalidRequestBody", "The body is not a JSON object.")
    return body


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    if body is None:
        return web.Response(status=status, headers=headers)
    return web.json_response(body, status=status, headers=headers)


def _listing(request: web.Request, found: Sequence[dict[str, Any]]) -> web.Response:
    items, following = odata.page(odata.matching(found, request.query.get("$filter")), request.query)
    return _json({"value": items, **_next_link(request, following, "odata.nextLink")})


def _next_link(request: web.Request, following: int | None, name: str) -> dict[str, str]:
    if following is None:
        return {}
    return {name: str(request.url.update_query({"$skiptoken": str(following)}))}


def _base(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"


def _error_body(problem: BatchProblem) -> dict[str, Any]:
    return {"code": problem.code, "message": {"lang": "en-US", "value": problem.message}}


def _refusal(request: web.Request, problem: BatchProblem) -> web.Response:
    """ARM and the data plane wrap their errors differently."""
    if request.path.startswith("/subscriptions/"):
        body: dict[str, Any] = {"error": {"code": problem.code, "message": problem.message}}
    else:
        body = _error_body(problem)
    return web.json_response(body, status=problem.status, headers={"x-ms-error-code": problem.code})

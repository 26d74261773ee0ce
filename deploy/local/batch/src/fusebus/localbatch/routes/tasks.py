"""Tasks: create one or many, get, list, terminate, reactivate, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from fusebus.localbatch import views
from fusebus.localbatch.entities import BatchProblem, Task
from fusebus.localbatch.routes import answers
from fusebus.localbatch.routes.front import Front
from fusebus.localbatch.state import BatchState

MAX_COLLECTION = 100  # tasks in one call: Batch's own limit


class _Tasks:
    def __init__(self, front: Front) -> None:
        self._state = front.state

    def _task(self, request: web.Request) -> Task:
        """The task of the path, if the conditions of the request hold for it."""
        task = self._state.task(request.match_info["job"], request.match_info["task"])
        answers.check_conditions(request, task.etag, task.since)
        return task

    async def create(self, request: web.Request) -> web.Response:
        task = self._state.create_task(request.match_info["job"], await answers.body_of(request))
        place = f"{answers.base_of(request)}/jobs/{task.job.id}/tasks/{task.id}"
        return answers.plain(201, {"Location": place, "ETag": task.etag})

    async def create_many(self, request: web.Request) -> web.Response:
        job, base = self._state.job(request.match_info["job"]), answers.base_of(request)
        bodies = (await answers.body_of(request)).get("value") or []
        if len(bodies) > MAX_COLLECTION:
            raise BatchProblem(400, "InvalidPropertyValue", f"At most {MAX_COLLECTION} tasks can be added at once.")
        return web.json_response({"value": [_added(self._state, job.id, body, base) for body in bodies]})

    async def list(self, request: web.Request) -> web.Response:
        job, base = self._state.job(request.match_info["job"]), answers.base_of(request)
        return answers.listing(request, [views.task_view(task, base) for task in job.tasks.values()])

    async def get(self, request: web.Request) -> web.Response:
        task = self._task(request)
        return answers.one(request, views.task_view(task, answers.base_of(request)), task.etag)

    async def delete(self, request: web.Request) -> web.Response:
        task = self._task(request)
        self._state.delete_task(task.job.id, task.id)
        return answers.plain(200)

    async def terminate(self, request: web.Request) -> web.Response:
        task = self._task(request)
        self._state.terminate_task(task.job.id, task.id)
        return answers.plain(204)

    async def reactivate(self, request: web.Request) -> web.Response:
        task = self._task(request)
        self._state.reactivate_task(task.job.id, task.id)
        return answers.plain(204)


def _added(state: BatchState, job_id: str, body: Mapping[str, Any], base: str) -> dict[str, Any]:
    """One line of the answer to a collection: each task stands or fails by itself."""
    task_id = str(body.get("id"))
    try:
        task = state.create_task(job_id, body)
    except BatchProblem as problem:
        return {"status": "clienterror", "taskId": task_id, "error": answers.error_body(problem)}
    return {
        "status": "success",
        "taskId": task_id,
        "eTag": task.etag,
        "location": f"{base}/jobs/{job_id}/tasks/{task_id}",
    }


def routes(front: Front) -> list[web.RouteDef]:
    tasks, one = _Tasks(front), "/jobs/{job}/tasks/{task}"
    return [
        web.post("/jobs/{job}/tasks", tasks.create),
        web.post("/jobs/{job}/addtaskcollection", tasks.create_many),
        web.get("/jobs/{job}/tasks", tasks.list),
        web.get(one, tasks.get),
        web.delete(one, tasks.delete),
        web.post(f"{one}/terminate", tasks.terminate),
        web.post(f"{one}/reactivate", tasks.reactivate),
    ]

"""Jobs: create, get, list, change, disable, enable, terminate, delete, and the counts of their tasks."""

from __future__ import annotations

from aiohttp import web

from fusebus.localbatch import views
from fusebus.localbatch.entities import Job
from fusebus.localbatch.routes import answers
from fusebus.localbatch.routes.front import Front


class _Jobs:
    def __init__(self, front: Front) -> None:
        self._state = front.state

    def _job(self, request: web.Request) -> Job:
        """The job of the path, if the conditions of the request hold for it."""
        job = self._state.job(request.match_info["job"])
        answers.check_conditions(request, job.etag, job.modified)
        return job

    async def create(self, request: web.Request) -> web.Response:
        job = self._state.create_job(await answers.body_of(request))
        return answers.plain(201, {"Location": f"{answers.base_of(request)}/jobs/{job.id}", "ETag": job.etag})

    async def list(self, request: web.Request) -> web.Response:
        base = answers.base_of(request)
        return answers.listing(request, [views.job_view(job, base) for job in self._state.jobs.values()])

    async def get(self, request: web.Request) -> web.Response:
        job = self._job(request)
        return answers.one(request, views.job_view(job, answers.base_of(request)), job.etag)

    async def change(self, request: web.Request) -> web.Response:
        """PATCH writes what is given, PUT forgets the rest."""
        job, body = self._job(request), await answers.body_of(request)
        self._state.update_job(job.id, body, replace=request.method == "PUT")
        return answers.plain(200, {"ETag": job.etag})

    async def disable(self, request: web.Request) -> web.Response:
        job, body = self._job(request), await answers.body_of(request)
        self._state.disable_job(job.id, body.get("disableTasks"))
        return answers.plain(202)

    async def enable(self, request: web.Request) -> web.Response:
        self._state.enable_job(self._job(request).id)
        return answers.plain(202)

    async def terminate(self, request: web.Request) -> web.Response:
        job, body = self._job(request), await answers.body_of(request)
        self._state.terminate_job(job.id, body.get("terminateReason") or "UserTerminate")
        return answers.plain(202)

    async def delete(self, request: web.Request) -> web.Response:
        self._state.delete_job(self._job(request).id)
        return answers.plain(202)

    async def counts(self, request: web.Request) -> web.Response:
        return web.json_response(views.task_counts(self._state.job(request.match_info["job"])))


def routes(front: Front) -> list[web.RouteDef]:
    jobs = _Jobs(front)
    return [
        web.post("/jobs", jobs.create),
        web.get("/jobs", jobs.list),
        web.get("/jobs/{job}", jobs.get),
        web.patch("/jobs/{job}", jobs.change),
        web.put("/jobs/{job}", jobs.change),
        web.delete("/jobs/{job}", jobs.delete),
        web.post("/jobs/{job}/disable", jobs.disable),
        web.post("/jobs/{job}/enable", jobs.enable),
        web.post("/jobs/{job}/terminate", jobs.terminate),
        web.get("/jobs/{job}/taskcounts", jobs.counts),
    ]

"""Files of tasks and of nodes: list, properties, content or a part of it, delete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

from aiohttp import web

from fusebus.localbatch import views
from fusebus.localbatch.entities import BatchProblem, Node, NodeState, Pool, Task
from fusebus.localbatch.routes import answers
from fusebus.localbatch.routes.front import Front

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class _Files:
    def __init__(self, front: Front) -> None:
        self._state, self._runner = front.state, front.runner

    # --- of a task

    async def list_of_task(self, request: web.Request) -> web.Response:
        return _list(request, [("", self._task_folder(request))])

    async def of_task(self, request: web.Request) -> web.Response:
        return _content(request, _inside(self._task_folder(request), request.match_info["path"]))

    async def delete_of_task(self, request: web.Request) -> web.Response:
        _inside(self._task_folder(request), request.match_info["path"]).unlink()
        return answers.plain(200)

    def _task_folder(self, request: web.Request) -> Path:
        task = self._state.task(request.match_info["job"], request.match_info["task"])
        self._check_there(task)
        return self._runner.task_dir(task.job.id, task.id)

    def _check_there(self, task: Task) -> None:
        """Files lie on the node: with its machine they are gone, though the task is still known."""
        if task.files_gone:
            raise BatchProblem(409, "TaskFilesCleanedup", "The files of the specified task are cleaned up.")
        if task.pool_id is None or task.node_id is None:
            return  # it did not run yet: there is nothing, which is not an error
        node = self._state.node(task.pool_id, task.node_id)
        _check_reachable(node)
        if node.machine != task.machine:
            raise BatchProblem(409, "TaskFilesUnavailable", "The node has lost the files of the specified task.")

    # --- of a node

    async def list_of_node(self, request: web.Request) -> web.Response:
        return _list(request, list(self._node_folders(request)))

    async def of_node(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        for prefix, folder in self._node_folders(request):
            if path.startswith(prefix):
                return _content(request, _inside(folder, path.removeprefix(prefix)))
        raise BatchProblem(404, "FileNotFound", "The specified file does not exist.")

    def _node_folders(self, request: web.Request) -> Iterator[tuple[str, Path]]:
        """What lies on a node: of each task that ran there its folder, then its own (with `startup`, `shared`)."""
        pool = self._state.pool(request.match_info["pool"])
        node = self._state.node(pool.id, request.match_info["node"])
        _check_reachable(node)
        for task in self._tasks_on(pool, node):
            yield f"workitems/{task.job.id}/job-1/{task.id}/", self._runner.task_dir(task.job.id, task.id)
        yield "", self._runner.node_dir(pool.id, node.id)

    def _tasks_on(self, pool: Pool, node: Node) -> list[Task]:
        tasks = [task for job in self._state.jobs.values() for task in job.tasks.values()]
        place = (pool.id, node.id, node.machine)
        return [task for task in tasks if (task.pool_id, task.node_id, task.machine) == place and not task.files_gone]


def _check_reachable(node: Node) -> None:
    if node.state is NodeState.UNUSABLE:
        raise BatchProblem(409, "NodeStateUnusable", f"The state of the specified node {node.id} is unusable.")
    if not node.has_machine or node.state in (NodeState.REBOOTING, NodeState.REIMAGING):
        code = "OperationInvalidForCurrentState"
        raise BatchProblem(409, code, f"The specified node {node.id} is {node.state.value}.")


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_file() or not path.is_relative_to(folder.resolve()):
        raise BatchProblem(404, "FileNotFound", "The specified file does not exist.")
    return path


def _list(request: web.Request, folders: list[tuple[str, Path]]) -> web.Response:
    recursive, base = request.query.get("recursive") == "true", f"{answers.base_of(request)}{request.path}"
    found = []
    for prefix, folder in folders:
        if prefix and not recursive:
            continue  # below `workitems`, which a flat list shows as a folder only
        for path in folder.rglob("*") if recursive else folder.glob("*"):
            name = prefix + path.relative_to(folder).as_posix()
            found.append(_view(path, name, f"{base}/{name}"))
    if not recursive and len(folders) > 1:
        found.append({"name": "workitems", "url": f"{base}/workitems", "isDirectory": True})
    return answers.listing(request, found, key="name")


def _view(path: Path, name: str, url: str) -> dict[str, object]:
    facts = path.stat()
    view: dict[str, object] = {"name": name, "url": url, "isDirectory": path.is_dir()}
    if not path.is_dir():
        times = {"creationTime": views.time_text(facts.st_ctime), "lastModified": views.time_text(facts.st_mtime)}
        view["properties"] = {"contentLength": str(facts.st_size), **times}
    return view


def _content(request: web.Request, path: Path) -> web.Response:
    """HEAD and GET of one file; `ocp-range` reads a part of it."""
    content, facts = path.read_bytes(), path.stat()
    asked = _RANGE.fullmatch(request.headers.get("ocp-range", ""))
    if asked:
        if int(asked[1]) >= len(content) and content:
            raise BatchProblem(416, "InvalidRange", "The range is invalid for the size of the file.")
        content = content[int(asked[1]) : int(asked[2]) + 1 if asked[2] else None]
    headers = {
        "Last-Modified": formatdate(facts.st_mtime, usegmt=True),
        "ocp-creation-time": formatdate(facts.st_ctime, usegmt=True),
        "ocp-batch-file-isdirectory": "false",
        "ocp-batch-file-url": f"{answers.base_of(request)}{request.path}",
        "ocp-batch-file-mode": f"0o{facts.st_mode:o}",
    }
    return web.Response(body=content, headers=headers, content_type="application/octet-stream")


def routes(front: Front) -> list[web.RouteDef]:
    files = _Files(front)
    of_task, of_node = "/jobs/{job}/tasks/{task}/files", "/pools/{pool}/nodes/{node}/files"
    return [
        web.get(of_task, files.list_of_task),
        web.get(f"{of_task}/{{path:.+}}", files.of_task),
        web.delete(f"{of_task}/{{path:.+}}", files.delete_of_task),
        web.get(of_node, files.list_of_node),
        web.get(f"{of_node}/{{path:.+}}", files.of_node),
    ]

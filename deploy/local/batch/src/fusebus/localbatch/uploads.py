"""Brings a task's output files to storage when it has ended, as `outputFiles` asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit, urlunsplit

from fusebus.localbatch.entities import Upload

UPLOAD_SECONDS = 60.0
"""For one file; a task is still running meanwhile."""
_WILD = re.compile(r"[*?\[]")
_CODES = {403: "FileUploadAccessDenied", 404: "FileUploadContainerNotFound"}  # by HTTP status


async def upload_outputs(
    uploads: Iterable[Upload], folder: Path, work: Path, succeeded: bool
) -> tuple[str, str] | None:
    """Upload what the conditions want; the first failure as code and sentence. Only files below `folder` count."""
    wanted = {"taskcompletion", "tasksuccess" if succeeded else "taskfailure"}
    for upload in uploads:
        if upload.condition not in wanted:
            continue
        for path, name in _matching(upload, folder, work):
            problem = await _put(path, _blob_url(upload.container_url, name))
            if problem is not None:
                return problem
    return None


def _matching(upload: Upload, folder: Path, work: Path) -> Iterator[tuple[Path, str]]:
    """Files and the names of their blobs: one file has the path itself, several have it as prefix."""
    parts = PurePosixPath(upload.pattern).parts
    fixed = next((index for index, part in enumerate(parts) if _WILD.search(part)), len(parts))
    base = work.joinpath(*parts[:fixed])
    several = fixed < len(parts)
    found = sorted(base.glob("/".join(parts[fixed:]))) if several else [base]
    for path in found:
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            continue
        inner = path.relative_to(base).as_posix() if several else path.name
        yield (
            path,
            "/".join(part for part in (upload.path.strip("/"), inner) if part) if several else (upload.path or inner),
        )


def _blob_url(container_url: str, name: str) -> str:
    parts = urlsplit(container_url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))


async def _put(path: Path, url: str) -> tuple[str, str] | None:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=UPLOAD_SECONDS)
    headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
    try:
        with path.open("rb") as content:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.put(url, data=content, headers=headers, skip_auto_headers=["Expect"]) as answer,
            ):
                if answer.status < 400:
                    return None
                code = _CODES.get(answer.status, "FileUploadMiscError")
                return code, f"{path.name} could not be uploaded: HTTP {answer.status}"
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        return "FileUploadMiscError", f"{path.name} could not be uploaded: {type(error).__name__}"

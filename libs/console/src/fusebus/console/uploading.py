"""Sends a folder's files with a supplier's SAS, several at a time, never over an existing blob."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qs, urlsplit

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.storage.blob.aio import ContainerClient

from fusebus.blobs import StorageError
from fusebus.console.photos import Photo
from fusebus.upload import name_is_taken, unfit_name

PARALLEL_UPLOADS = 8
RETRIES = 4  # of one request, with growing pauses, by the storage SDK
CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
IsThere = Callable[[str, bytes], Awaitable[bool]]  # whether the blob of this name has this content


class Sent(StrEnum):
    """What became of one file."""

    SENT = "sent"
    ALREADY_THERE = "already there"
    """With this content."""
    NAME_TAKEN = "name taken"
    """By other content: nothing was overwritten, and the file has not arrived."""
    FAILED = "failed"


@dataclass(frozen=True)
class Upload:
    """One file's outcome; `error` is empty if it is there, `etag` unless it was sent."""

    photo: Photo
    sent: Sent
    etag: str = ""
    error: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the file's content has arrived, now or earlier."""
        return self.sent in (Sent.SENT, Sent.ALREADY_THERE)


async def upload_photos(
    container_sas_url: str,
    photos: Sequence[Photo],
    is_there: IsThere,
    on_upload: Callable[[Upload], None] = lambda _: None,
) -> list[Upload]:
    """Upload `photos`; a file that fails doesn't stop the others. A create-only SAS suffices.

    A SAS can't read, so `is_there` tells whether the blob of a name that is taken has this content.
    """
    async with ContainerClient.from_container_url(
        container_sas_url,
        retry_total=RETRIES,
        connection_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
    ) as container:
        token = parse_qs(urlsplit(container_sas_url).query)
        may_create = "c" in token.get("sp", [""])[0] and "skoid" not in token  # an identity's may allow less
        waiting, done = deque(photos), list[Upload]()

        async def sender() -> None:
            while waiting:
                outcome = await _upload(container, waiting.popleft(), may_create, is_there)
                done.append(outcome)
                on_upload(outcome)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(PARALLEL_UPLOADS, len(photos))):
                group.create_task(sender())
    return sorted(done, key=lambda upload: upload.photo.name)


async def _upload(container: ContainerClient, photo: Photo, may_create: bool, is_there: IsThere) -> Upload:
    if unfit := unfit_name(photo.name):
        return Upload(photo, Sent.FAILED, error=unfit)
    try:
        data = await asyncio.to_thread(photo.path.read_bytes)
        try:
            answer = await container.get_blob_client(photo.name).upload_blob(data, overwrite=False)
        except HttpResponseError as error:
            if not _is_taken(error, may_create):
                raise
            if await is_there(photo.name, data):
                return Upload(photo, Sent.ALREADY_THERE)
            return Upload(photo, Sent.NAME_TAKEN, error="there is another file of this name: rename it")
    except HttpResponseError as error:
        code = getattr(error, "error_code", None)
        return Upload(photo, Sent.FAILED, error=f"{error.status_code} {code or error.reason}")
    except (AzureError, StorageError, OSError) as error:
        return Upload(photo, Sent.FAILED, error=str(error))
    return Upload(photo, Sent.SENT, etag=str(answer["etag"]).strip('"'))


def _is_taken(error: HttpResponseError, may_create: bool) -> bool:
    server = str(getattr(error.response, "headers", {}).get("Server", ""))
    code = str(getattr(error, "error_code", None) or "")
    return isinstance(error, ResourceExistsError) or name_is_taken(code, server, may_create)

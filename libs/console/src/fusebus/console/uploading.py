"""Sends a folder's files with a supplier's SAS, several at a time, never over an existing blob."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qs, urlsplit

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.storage.blob.aio import ContainerClient

from fusebus.console.photos import Photo
from fusebus.upload import unfit_name

PARALLEL_UPLOADS = 8
RETRIES = 4  # of one request, with growing pauses, by the storage SDK
CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60


class Sent(StrEnum):
    """What became of one file."""

    SENT = "sent"
    ALREADY_THERE = "already there"
    FAILED = "failed"


@dataclass(frozen=True)
class Upload:
    """One file's outcome; `error` is empty unless it failed, `etag` unless it was sent."""

    photo: Photo
    sent: Sent
    etag: str = ""
    error: str = ""


async def upload_photos(
    container_sas_url: str, photos: Sequence[Photo], on_upload: Callable[[Upload], None] = lambda _: None
) -> list[Upload]:
    """Upload `photos`; a file that fails doesn't stop the others. A create-only SAS suffices."""
    async with ContainerClient.from_container_url(
        container_sas_url,
        retry_total=RETRIES,
        connection_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
    ) as container:
        may_create = "c" in parse_qs(urlsplit(container_sas_url).query).get("sp", [""])[0]
        waiting, done = deque(photos), list[Upload]()

        async def sender() -> None:
            while waiting:
                outcome = await _upload(container, waiting.popleft(), may_create)
                done.append(outcome)
                on_upload(outcome)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(PARALLEL_UPLOADS, len(photos))):
                group.create_task(sender())
    return sorted(done, key=lambda upload: upload.photo.name)


async def _upload(container: ContainerClient, photo: Photo, may_create: bool) -> Upload:
    if unfit := unfit_name(photo.name):
        return Upload(photo, Sent.FAILED, error=unfit)
    try:
        data = await asyncio.to_thread(photo.path.read_bytes)
        answer = await container.get_blob_client(photo.name).upload_blob(data, overwrite=False)
    except ResourceExistsError:
        return Upload(photo, Sent.ALREADY_THERE)
    except HttpResponseError as error:
        code = getattr(error, "error_code", None)
        # Where a SAS may create but not overwrite, Azure and Azurite refuse with these codes, not with a conflict.
        if may_create and code in ("UnauthorizedBlobOverwrite", "AuthorizationPermissionMismatch"):
            return Upload(photo, Sent.ALREADY_THERE)
        return Upload(photo, Sent.FAILED, error=f"{error.status_code} {code or error.reason}")
    except (AzureError, OSError) as error:
        return Upload(photo, Sent.FAILED, error=str(error))
    return Upload(photo, Sent.SENT, etag=str(answer["etag"]).strip('"'))

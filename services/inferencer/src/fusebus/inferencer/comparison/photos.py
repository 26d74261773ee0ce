"""Which photos are compared: those of a run, or those of a folder; and what a run already has stored of a version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fusebus.blobs import Blobs, BlobVanished, layout
from fusebus.contracts.identity import analysis_id
from fusebus.contracts.messages import JobKind
from fusebus.inferencer.result import ResultDetection as Found
from fusebus.ledger import FinalKind, Ledger, UploadRow

MAX_PHOTO_BYTES = 512 * 1024 * 1024
MAX_RESULT_BYTES = 64 * 1024 * 1024


class NoPhotos(Exception):
    """There is nothing to compare; the text says where and what will work."""


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One photo to compare."""

    name: str
    """As its supplier or its file calls it: data, never a path."""
    read: Callable[[], Awaitable[bytes]]
    stored: Callable[[str], Awaitable[tuple[Found, ...] | None]]
    """What a version (`name@version`) found in it before; None where that is not known."""


class _StoredResult(msgspec.Struct):
    """What is needed of a result file."""

    detections: tuple[Found, ...]


def photos_in(folder: Path) -> list[Photo]:
    """Every file below `folder`, hidden ones left out, in the order of their names. Raises NoPhotos."""
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not paths:
        raise NoPhotos(f"{folder} holds no files; name the folder that holds the photos")
    return [_local(path, path.relative_to(folder).as_posix()) for path in paths]


async def photos_of(run_id: str, ledger: Ledger, blobs: Blobs) -> list[Photo]:
    """The run's accepted photos, duplicates left out. Raises NoPhotos, LedgerError."""
    if await ledger.run(run_id) is None:
        raise NoPhotos(f"there is no run {run_id}; fusebus status shows the runs")
    found = [_uploaded(row, blobs) for row in await ledger.uploads(run_id) if _is_work(row)]
    if not found:
        raise NoPhotos(f"no photo of run {run_id} was accepted")
    return sorted(found, key=lambda photo: photo.name)


def _is_work(row: UploadRow) -> bool:
    return row.image is not None and (row.final is None or row.final.kind is not FinalKind.DUPLICATE)


def _local(path: Path, name: str) -> Photo:
    async def read() -> bytes:
        return await asyncio.to_thread(path.read_bytes)

    async def stored(_: str) -> None:
        return None

    return Photo(name=name, read=read, stored=stored)


def _uploaded(row: UploadRow, blobs: Blobs) -> Photo:
    image = row.image
    assert image is not None

    async def read() -> bytes:
        most = min(row.size, MAX_PHOTO_BYTES)
        return await blobs.read(row.container, row.blob_name, etag=row.blob_etag, max_bytes=most)

    async def stored(ref: str) -> tuple[Found, ...] | None:
        name = layout.result_name(row.run_id, analysis_id(image.image_id, JobKind.DETECT.value, ref))
        try:
            data = await blobs.read(layout.RESULTS, name, max_bytes=MAX_RESULT_BYTES)
        except BlobVanished:
            return None
        return msgspec.json.decode(data, type=_StoredResult).detections

    return Photo(name=row.blob_name, read=read, stored=stored)

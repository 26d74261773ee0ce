"""Fetches a version's files from storage into a folder of our own, whole or not at all, going on where it broke off."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from fusebus.blobs import BlobChanged, Blobs, BlobVanished, StorageUnavailable
from fusebus.models.manifest import MANIFEST_NAME, ModelError, ModelFile, ModelManifest, load_manifest

FETCH_TRIES = 5
"""Of one file, beyond what the storage client repeats itself; each goes on where the last one broke off."""
FETCH_PAUSE_SECONDS = 1.0
"""Before the second try; doubles."""
LOCK_POLL_SECONDS = 0.1
SPARE_BYTES = 64 * 1024 * 1024
"""Free space that a download leaves."""
READ_BYTES = 4 * 1024 * 1024

OnBytes = Callable[[int], None]


async def fetch_file(
    blobs: Blobs, container: str, name: str, path: Path, expected: ModelFile, on_bytes: OnBytes
) -> None:
    """Bring `name` to `path` (mode 0600), and prove that it is what its manifest says.

    What an earlier try left at `path` is kept where it fits. Raises ModelError where storage holds anything else,
    StorageError, OSError.
    """
    etag = await _etag(blobs, container, name, expected)
    with _open_own(path) as file:
        resumed = await _resume(blobs, container, name, etag, file, expected, on_bytes)
        if resumed:  # what was left there may have been of another attempt: once more from the beginning
            file.truncate(0)
            await _resume(blobs, container, name, etag, file, expected, lambda _: None)
        digest = await asyncio.to_thread(_digest, file)
        if digest != expected.sha256:
            file.truncate(0)
            raise ModelError(
                f"{name}: storage holds SHA-256 {digest}, the manifest says {expected.sha256};"
                " it was altered, promote another version"
            )


async def check_blob(blobs: Blobs, container: str, name: str, expected: ModelFile, on_bytes: OnBytes) -> None:
    """Read `name` once, keeping nothing. Raises ModelError where it is not what its manifest says, StorageError."""
    etag, digest = await _etag(blobs, container, name, expected), hashlib.sha256()
    async for part in blobs.chunks(container, name, etag=etag):
        await asyncio.to_thread(digest.update, part)
        on_bytes(len(part))
    if digest.hexdigest() != expected.sha256:
        raise ModelError(f"{name}: has SHA-256 {digest.hexdigest()}, the manifest says {expected.sha256}")


@contextlib.asynccontextmanager
async def only_one(folder: Path) -> AsyncIterator[None]:
    """Hold a lock on the folder, over processes: who comes second waits."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)  # lets the lock go


def make_private(folder: Path) -> None:
    """A folder that only we can write to; made with mode 0700. Raises OSError: that is no fault of any model."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(f"{folder}: is a link or no folder; name a folder of your own")
    if facts.st_uid != os.geteuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder}: others can write there and could alter models; chmod go-w, or name another")


def require_space(folder: Path, size: int) -> None:
    """Raises OSError where `size` more bytes don't fit."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        raise OSError(f"{folder}: the model needs {size} bytes, {free} are free; make room or name another disk")


def proven(folder: Path, manifest_data: bytes) -> Path:
    """The folder, if it holds the model of that manifest and nothing was altered. Raises ModelError."""
    load_manifest(folder)
    if (folder / MANIFEST_NAME).read_bytes() != manifest_data:
        raise ModelError(f"{folder}: holds another model than the registry; remove it")
    return folder


def seal(folder: Path, manifest_data: bytes, manifest: ModelManifest) -> None:
    """Complete the folder, prove it, and let nobody write its files any more."""
    (folder / MANIFEST_NAME).write_bytes(manifest_data)
    for name in (*manifest.files, MANIFEST_NAME):
        (folder / name).chmod(0o400)
    load_manifest(folder)


async def _etag(blobs: Blobs, container: str, name: str, expected: ModelFile) -> str:
    found = await blobs.properties(container, name)
    if found is None:
        raise ModelError(f"{name}: is missing in storage; push the model under another version")
    if found.size != expected.bytes:
        raise ModelError(f"{name}: has {found.size} bytes in storage, the manifest says {expected.bytes}")
    return found.etag


async def _resume(
    blobs: Blobs, container: str, name: str, etag: str, file: BinaryIO, expected: ModelFile, on_bytes: OnBytes
) -> bool:
    """Append what is missing; whether something was there already and the whole is not what was expected."""
    found = file.seek(0, os.SEEK_END)
    if found > expected.bytes:
        found = file.truncate(file.seek(0))
    on_bytes(found)
    for attempt in range(FETCH_TRIES):
        try:
            await _append(blobs, container, name, etag, file, expected, on_bytes)
            break
        except StorageUnavailable:
            if attempt == FETCH_TRIES - 1:
                raise
            await asyncio.sleep(FETCH_PAUSE_SECONDS * 2**attempt)
        except (BlobChanged, BlobVanished) as error:
            raise ModelError(f"{name}: was changed in storage while it was fetched; it was altered") from error
    return found > 0 and await asyncio.to_thread(_digest, file) != expected.sha256


async def _append(
    blobs: Blobs, container: str, name: str, etag: str, file: BinaryIO, expected: ModelFile, on_bytes: OnBytes
) -> None:
    at = file.seek(0, os.SEEK_END)
    if at == expected.bytes:
        return
    try:
        async for part in blobs.chunks(container, name, etag=etag, offset=at):
            await asyncio.to_thread(file.write, part)
            on_bytes(len(part))
    finally:
        file.flush()


def _open_own(path: Path) -> BinaryIO:
    """Open for reading and writing, made with mode 0600; never through a link. Raises ModelError, OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or facts.st_uid != os.geteuid():
        os.close(descriptor)
        raise ModelError(f"{path}: is not a file of our own; remove it")
    return os.fdopen(descriptor, "r+b")


def _digest(file: BinaryIO) -> str:
    file.flush()
    file.seek(0)
    digest = hashlib.sha256()
    while part := file.read(READ_BYTES):
        digest.update(part)
    return digest.hexdigest()

"""Owns a training's state in blob storage: sent at every write, in the background, and fetched by whoever goes on.

A state is one blob, PREFIX/state-<step>.pt; PREFIX/latest.json, written after it, names it. The two newest are kept, so
that an eviction in the middle of an upload leaves the one before.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import msgspec

from fusebus.blobs import Blobs, BlobSettings, BlobVanished
from fusebus.host import load_settings
from fusebus.host.settings import FILE_VARIABLE
from fusebus.vision.export.training_state import STATE, StateError

_KEPT = 2  # states in storage
_MAX_NOTE_BYTES = 10_000
_LATEST = "latest.json"


class CheckpointSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the storage account is."""

    blobs: BlobSettings


class CheckpointStore:
    """The states of one training in a container, below a prefix."""

    def __init__(self, settings: BlobSettings, container: str, prefix: str) -> None:
        self._settings, self._container, self._prefix = settings, container, prefix.strip("/")

    def fetch(self, folder: Path) -> str | None:
        """Put the newest state into `folder`, unless one of a later step lies there; its blob's name, None without one.

        Raises StorageError.
        """
        return asyncio.run(self._fetch(folder))

    @contextmanager
    def uploading(self) -> Iterator[Callable[[Path, int], None]]:
        """What to call after each write of the state. An upload runs beside the training; at the end it is waited for.

        Where storage fails, the next write tries again; the last one's StorageError is raised.
        """
        upload = _Upload(self)
        yield upload.start
        upload.finish()

    async def send(self, path: Path, step: int) -> None:
        """Upload the state at `path` and make it the newest."""
        async with Blobs(self._settings) as blobs:
            await blobs.create_container(self._container)
            name = self._name(f"state-{step:08}.pt")
            with path.open("rb") as file:
                await blobs.upload_file(self._container, name, file)
            note = json.dumps({"name": name, "step": step}).encode()
            await blobs.write(self._container, self._name(_LATEST), note, "application/json")
            states = [one.name async for one in blobs.list(self._container, self._name("state-"))]
            for old in sorted(states)[:-_KEPT]:
                await blobs.delete(self._container, old)

    async def _fetch(self, folder: Path) -> str | None:
        async with Blobs(self._settings) as blobs:
            try:
                note = await blobs.read(self._container, self._name(_LATEST), max_bytes=_MAX_NOTE_BYTES)
            except BlobVanished:
                return None
            latest = json.loads(note)
            if _step_of(folder / STATE) >= latest["step"]:
                return None
            found = await blobs.properties(self._container, latest["name"])
            if found is None:
                raise StateError(
                    f"{self._container}/{latest['name']} is gone; delete {_LATEST} beside it to begin anew"
                )
            fresh = folder / f"{STATE}.fetched"
            with fresh.open("wb") as file:
                async for chunk in blobs.chunks(self._container, latest["name"], etag=found.etag):
                    file.write(chunk)
            fresh.replace(folder / STATE)
            return f"{self._container}/{latest['name']}"

    def _name(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


class _Upload:
    """At most one upload at a time, of a copy: the training goes on writing its own."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._thread: Thread | None = None
        self._waiting: tuple[Path, int] | None = None
        self._error: Exception | None = None

    def start(self, path: Path, step: int) -> None:
        """Send this state now, or leave it to the next write while another is under way."""
        self._waiting = (path, step)
        if self._thread is None or not self._thread.is_alive():
            self._begin()

    def finish(self) -> None:
        """Wait for what is under way, send what is left, and raise what went wrong last."""
        if self._thread is not None:
            self._thread.join()
        if self._waiting is not None:
            self._begin()
            assert self._thread is not None
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _begin(self) -> None:
        assert self._waiting is not None
        path, step = self._waiting
        copy = path.with_suffix(".sending")
        copy.unlink(missing_ok=True)
        os.link(path, copy)  # the state is replaced, never changed: a second name keeps this one
        self._waiting = None
        self._thread = Thread(target=self._run, args=(copy, step), name="checkpoint-upload")
        self._thread.start()

    def _run(self, copy: Path, step: int) -> None:
        try:
            asyncio.run(self._store.send(copy, step))
            self._error = None
        except Exception as error:  # told at the end: a training is worth more than one upload
            self._error = error
        finally:
            copy.unlink(missing_ok=True)


def open_store(place: str, settings_file: Path | None) -> CheckpointStore:
    """The store at CONTAINER/PREFIX, with the settings' section `blobs`. Raises SettingsError."""
    container, _, prefix = place.partition("/")
    environ = {**os.environ, FILE_VARIABLE: str(settings_file)} if settings_file else dict(os.environ)
    settings = load_settings(CheckpointSettings, "training", environ)
    return CheckpointStore(settings.blobs, container, prefix)


def _step_of(path: Path) -> int:
    import torch

    return int(torch.load(path, map_location="cpu", weights_only=True)["step"]) if path.exists() else -1

"""Brings one version from the registry into service: fetched beside the running one, tried in a child, then opened."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import stat
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fusebus.inferencer.backends import BackendError
from fusebus.inferencer.backends.onnx import OnnxBackend
from fusebus.inferencer.guard import TRIAL, ModelRefusal, try_model
from fusebus.inferencer.model import ModelThread
from fusebus.inferencer.serving import Served
from fusebus.inferencer.trial import TrialOrder
from fusebus.models.live import LiveModel
from fusebus.models.manifest import MANIFEST_NAME, ModelError, ModelManifest, load_manifest

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What we need of fusebus.models.registry.Registry."""

    async def pull(self, model: LiveModel, into: Path) -> Path:
        """See Registry.pull."""
        ...


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a model runs here, whichever it is."""

    provider: str
    intra_op_threads: int
    max_batch: int
    warm_up: bool
    device: threading.Lock = field(default_factory=threading.Lock)
    """Versions that are open side by side take turns."""

    def thread(self, folder: Path, manifest: ModelManifest) -> ModelThread:
        """Its thread, not open yet."""
        return ModelThread(
            lambda: OnnxBackend(folder / manifest.file, self.provider, self.intra_op_threads),
            self.max_batch,
            manifest.image_size if self.warm_up else None,
            self.device,
        )


async def open_folder(folder: Path, running: Running) -> Served:
    """A model folder of this machine's own, trusted as the settings are. Raises ModelError, BackendError."""
    manifest = await asyncio.to_thread(load_manifest, folder)
    thread = running.thread(folder, manifest)
    await thread.open()
    return Served(manifest=manifest, manifest_sha256=manifest_digest(folder), thread=thread)


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Loads versions from a registry under limits."""

    source: Source
    running: Running
    cache: Path
    """Where the private folders are made; on Azure Batch the node's temporary disk."""
    seconds: float
    """For the trial, and again for the opening."""
    memory_bytes: int
    trial: Sequence[str] = TRIAL

    async def __call__(self, model: LiveModel) -> Served:
        """The version, open and warm. Raises ModelRefusal where it is not fit, StorageError where it is not at hand."""
        await asyncio.to_thread(self.cache.mkdir, parents=True, exist_ok=True)
        private = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="model-", dir=self.cache))  # mode 0700
        try:
            return await self._load(model, private)
        except BaseException:
            await asyncio.to_thread(remove, private)
            raise

    async def _load(self, model: LiveModel, private: Path) -> Served:
        try:
            folder = await self.source.pull(model, private)
            await asyncio.to_thread(make_read_only, private)
        except ModelError as error:
            raise ModelRefusal("files", str(error)) from error
        order = TrialOrder(
            folder=str(folder),
            provider=self.running.provider,
            intra_op_threads=self.running.intra_op_threads,
            max_batch=self.running.max_batch,
            memory_bytes=self.memory_bytes,
        )
        report = await try_model(order, self.seconds, self.trial)
        _log.info(
            "model %s is fit to serve: loaded in %.1f s, %.0f ms for one picture",
            model.ref,
            report.load_seconds,
            report.warm_seconds * 1000,
            extra={"missing": report.missing},
        )
        return await self._open(model, folder, private)

    async def _open(self, model: LiveModel, folder: Path, private: Path) -> Served:
        manifest = await asyncio.to_thread(load_manifest, folder)
        if manifest.ref != model.ref or manifest_digest(folder) != model.manifest_sha256:
            raise ModelRefusal("files", f"{model.ref} was promoted with another manifest than the one that came")
        thread = self.running.thread(folder, manifest)
        try:
            async with asyncio.timeout(self.seconds):
                await thread.open()
        except TimeoutError as error:
            raise ModelRefusal("time_out", f"was not open within {self.seconds:g} s") from error
        except BackendError as error:
            raise ModelRefusal("load", str(error)) from error
        except Exception as error:  # of the warm-up: onnxruntime's own errors share no public base
            raise ModelRefusal("warm_up", str(error)) from error
        return Served(
            manifest=manifest,
            manifest_sha256=manifest_digest(folder),
            thread=thread,
            forget=lambda: remove(private),
        )


def manifest_digest(folder: Path) -> str:
    """SHA-256 of manifest.json."""
    return hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()


def make_read_only(folder: Path) -> None:
    """Nobody writes there any more, ourselves included, until `remove`."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))


def remove(folder: Path) -> None:
    """Delete a folder that may be read-only; what can't be deleted stays for whoever cleans the disk."""
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        path.chmod(stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)

"""Brings one version from the registry into service: fetched beside the running one, tried in a child, then opened."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fusebus.inferencer import telemetry
from fusebus.inferencer.backends import BackendError
from fusebus.inferencer.backends.onnx import open_backend
from fusebus.inferencer.backends.providers import CUDA, TENSORRT, Accelerator
from fusebus.inferencer.guard import TRIAL, ModelRefusal, try_model
from fusebus.inferencer.model import ModelThread
from fusebus.inferencer.serving import Served
from fusebus.inferencer.trial import TrialOrder
from fusebus.models.live import LiveModel
from fusebus.models.manifest import MANIFEST_NAME, ModelError, ModelManifest, load_manifest

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What we need of fusebus.models.registry.Registry."""

    async def pull(self, ref: str, into: Path) -> Path:
        """See Registry.pull."""
        ...


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a model runs here, whichever it is."""

    provider: str
    intra_op_threads: int
    max_batch: int
    warm_up: bool
    max_pixels: int = 0
    """Of the inputs of one model call together; 0: no limit beside `max_batch`."""
    accelerator: Accelerator = field(default_factory=Accelerator)
    turns: threading.Lock = field(default_factory=threading.Lock)
    """Versions that are open side by side take turns."""

    def thread(self, folder: Path, manifest: ModelManifest) -> ModelThread:
        """Its thread, not open yet."""
        return ModelThread(
            lambda: open_backend(
                folder, manifest, self.provider, self.intra_op_threads, self.max_batch, self.accelerator
            ),
            self.max_batch,
            manifest.image_size if self.warm_up else None,
            self.turns,
            self.max_pixels,
        )

    @property
    def trial_provider(self) -> str:
        """A trial writes no files, so it could keep no engine: CUDA shows what TensorRT would need minutes for."""
        return CUDA if self.provider == TENSORRT else self.provider


async def open_folder(folder: Path, running: Running) -> Served:
    """A model folder of this machine's own, trusted as the settings are. Raises ModelError, BackendError."""
    manifest = await asyncio.to_thread(load_manifest, folder)
    thread = running.thread(folder, manifest)
    with telemetry.loading(manifest.ref):
        await thread.open()
    return Served(manifest=manifest, manifest_sha256=manifest_digest(folder), thread=thread)


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Loads versions from a registry under limits."""

    source: Source
    running: Running
    cache: Path
    """Private folder of downloaded versions, shared by the workers of a node."""
    seconds: float
    """For the trial, and again for the opening."""
    memory_bytes: int
    trial: Sequence[str] = TRIAL

    async def __call__(self, model: LiveModel) -> Served:
        """The version, open and warm.

        Raises ModelRefusal where it is not fit; StorageError, OSError where it could not be fetched.
        """
        with telemetry.loading(model.ref):
            return await self._load(model)

    async def _load(self, model: LiveModel) -> Served:
        try:
            folder = await self.source.pull(model.ref, self.cache)
        except ModelError as error:
            raise ModelRefusal("files", str(error)) from error
        order = TrialOrder(
            folder=str(folder),
            provider=self.running.trial_provider,
            intra_op_threads=self.running.intra_op_threads,
            max_batch=self.running.max_batch,
            device=self.running.accelerator.device,
            cuda_graph=self.running.accelerator.cuda_graph,
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
        return await self._open(model, folder)

    async def _open(self, model: LiveModel, folder: Path) -> Served:
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
        return Served(manifest=manifest, manifest_sha256=model.manifest_sha256, thread=thread)


def manifest_digest(folder: Path) -> str:
    """SHA-256 of manifest.json."""
    return hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()

"""Runs both versions over the photos, one photo after the other, and collects what they found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fusebus.blobs import BlobChanged, BlobTooLarge, BlobVanished
from fusebus.inferencer.backends import Backend, Outputs
from fusebus.inferencer.codecs import detections_of
from fusebus.inferencer.comparison.figures import Compared, compared
from fusebus.inferencer.comparison.photos import Photo
from fusebus.inferencer.result import ResultDetection as Found
from fusebus.inferencer.result import as_stored
from fusebus.inferencer.warm_up import warm_up
from fusebus.models.manifest import ModelManifest
from fusebus.vision import ImageError, Pixels, decode, resize_to_model


@dataclass(kw_only=True)
class Version:
    """One side of the comparison; its model is opened when it is first needed."""

    manifest: ModelManifest
    open_backend: Callable[[], Backend]

    @cached_property
    def backend(self) -> Backend:
        """Open and warm."""
        opened = self.open_backend()
        warm_up(opened, self.manifest, 1)
        return opened

    def timed(self, model_input: Pixels) -> tuple[Outputs, float]:
        """What it says of one photo, and the seconds that took."""
        backend, batch = self.backend, model_input[np.newaxis]
        started = time.perf_counter()
        outputs = backend.run(batch)
        return outputs.of(0), time.perf_counter() - started


@dataclass
class Comparison:
    """What came of it so far."""

    photos: list[Compared] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


async def compare(
    versions: tuple[Version, Version],
    photos: Sequence[Photo],
    *,
    use_stored: bool,
    on_photo: Callable[[], None] = lambda: None,
) -> Comparison:
    """Compare every photo that can be read and decoded. The versions take turns in going first."""
    done = Comparison()
    with ThreadPoolExecutor(1) as thread:  # a model belongs to one thread
        for number, photo in enumerate(photos):
            try:
                done.photos.append(await _one(thread, versions, photo, use_stored, swapped=number % 2 == 1))
            except ImageError as error:
                done.skipped[photo.name] = f"{error.reason}: {error}"
            except (BlobVanished, BlobChanged, BlobTooLarge) as error:
                done.skipped[photo.name] = str(error)
            on_photo()
    return done


async def _one(
    thread: ThreadPoolExecutor, versions: tuple[Version, Version], photo: Photo, use_stored: bool, swapped: bool
) -> Compared:
    known = [await photo.stored(version.manifest.ref) if use_stored else None for version in versions]
    found: list[tuple[tuple[Found, ...], float | None]] = [(stored or (), None) for stored in known]
    missing = [side for side in (0, 1) if known[side] is None]
    if missing:
        data = await photo.read()
        order = reversed(missing) if swapped else missing
        ran = await asyncio.wrap_future(thread.submit(_run, data, versions, tuple(order)))
        for side, result in ran.items():
            found[side] = result
    return compared(photo.name, found[0], found[1])


def _run(
    data: bytes, versions: tuple[Version, Version], order: Sequence[int]
) -> dict[int, tuple[tuple[Found, ...], float]]:
    pixels = decode(data)
    height, width = pixels.shape[:2]
    results = {}
    for side in order:
        manifest = versions[side].manifest
        outputs, seconds = versions[side].timed(resize_to_model(pixels, manifest.image_size))
        results[side] = tuple(map(as_stored, detections_of(outputs, manifest, width, height))), seconds
    return results

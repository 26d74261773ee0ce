"""The work on pixels before and after the model, and the threads it runs in."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, ParamSpec, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from fusebus.inferencer.backends import Outputs
from fusebus.models import ModelManifest
from fusebus.vision import (
    Detection,
    Pixels,
    annotate,
    decode,
    encode_jpeg,
    postprocess,
    resize_to_model,
)

P = ParamSpec("P")
T = TypeVar("T")


class DigestMismatch(Exception):
    """The bytes are not those that were accepted."""


class Prepared(NamedTuple):
    """A decoded picture and what the model gets to see of it."""

    pixels: Pixels
    """Upright RGB at full size."""
    model_input: NDArray[np.uint8]
    """(size, size, 3)."""


class Rendered(NamedTuple):
    """What was found, and the picture with it drawn in."""

    detections: list[Detection]
    jpeg: bytes


class Codecs:
    """A few threads for functions that release the GIL: `async with Codecs(2) as codecs: await codecs.run(f, ...)`."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="codec")

    async def __aenter__(self) -> Self:
        cv2.setNumThreads(1)  # the threads here are ours to count
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result; raises what it raises."""
        return await asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))


def prepare(data: bytes, sha256: str, size: int) -> Prepared:
    """Check the digest, decode, and make the model's input. Raises DigestMismatch and vision's ImageError."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DigestMismatch(f"the blob has SHA-256 {found}, accepted was {sha256}")
    pixels = decode(data)
    return Prepared(pixels, resize_to_model(pixels, size))


def render(pixels: Pixels, outputs: Outputs, manifest: ModelManifest, quality: int) -> Rendered:
    """Turn one picture's outputs into detections and draw them; `pixels` is drawn into."""
    height, width = pixels.shape[:2]
    detections = detections_of(outputs, manifest, width, height)
    return Rendered(detections, encode_jpeg(annotate(pixels, detections), quality))


def detections_of(outputs: Outputs, manifest: ModelManifest, width: int, height: int) -> list[Detection]:
    """What the manifest makes of one picture's outputs; `width` and `height` in pixels of the upright picture."""
    return postprocess(
        outputs.scores,
        outputs.boxes,
        outputs.masks,
        width,
        height,
        classes=outputs.classes,
        labels=manifest.prompts,
        thresholds=manifest.score_thresholds,
        nms_iou=manifest.nms_iou,
        mask_size=manifest.image_size,
    )

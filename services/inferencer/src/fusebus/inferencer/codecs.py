"""The work on pixels before and after the model, and the threads it runs in."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from fusebus.blobs import require_digest
from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.spare import Memory, Spare
from fusebus.inferencer.team import Team
from fusebus.inferencer.urgency import Urgency, ordinary
from fusebus.models import ModelManifest
from fusebus.vision import (
    Detection,
    Pixels,
    annotate,
    decode,
    encode_jpeg,
    inspect,
    postprocess,
    resize_to_model,
    scaled,
    shrink_for,
)
from fusebus.vision.decode import shrunk
from fusebus.vision.formats import is_jpeg, jpeg_segments
from fusebus.vision.rle import RunLengths

P = ParamSpec("P")
T = TypeVar("T")


Rank = tuple[int, Urgency]
"""First the kind of work (0 first), then whose it is."""

_LAST_WITHOUT_A_TURN = 4
"""EXIF orientations from 5 on swap width and height."""
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of a container: "<microseconds> <of so many>", or "max ..."


class Prepared(NamedTuple):
    """A decoded picture and what the model gets to see of it."""

    pixels: Pixels
    """Upright RGB, perhaps reduced."""
    width: int
    """Of the upright picture at full size, in pixels."""
    height: int
    model_input: NDArray[np.uint8]
    """(size, size, 3)."""
    memory: Memory
    """In which the pixels lie."""


class Rendered(NamedTuple):
    """What was found, and the picture with it drawn in."""

    detections: list[Detection]
    jpeg: bytes


class Codecs:
    """A few threads for functions that release the GIL: `async with Codecs(2) as codecs: await codecs.run(f, ...)`.

    0 threads: one for each core.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads or cores()
        self.spare = Spare(self.threads)
        self._team = Team(self.threads, "codec")

    async def __aenter__(self) -> Self:
        cv2.setNumThreads(1)  # the threads here are ours to count
        self._team.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._team.stop()

    async def warm_up(self) -> None:
        """Load what the first picture needs (libvips, a font: 0.2 s) while nobody waits for it."""
        await self.run((0, ordinary()), _warm_up)

    def run(self, rank: Rank, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """The function's result; raises what it raises. Of what waits, the smallest rank goes first."""
        return self._team.run(rank, partial(function, *args, **kwargs))


def _warm_up() -> None:
    blank = np.zeros((64, 64, 3), np.uint8)
    resize_to_model(blank, 32)
    mask: RunLengths = {"size": [1, 1], "counts": ""}
    thing = Detection(label="fuse neutral", score=1.0, box=(8, 8, 56, 56), mask=mask, polygons=())
    encode_jpeg(annotate(blank, [thing]))


def prepare(data: bytes, sha256: str, size: int, most_pixels: int = 0, spare: Spare | None = None) -> Prepared:
    """Check the digest, decode, and make the model's input. Raises DigestMismatch and vision's ImageError.

    A picture of more than `most_pixels` (0: any) is halved until it is not, or the model would see less of it.
    """
    require_digest(data, sha256)
    segments = jpeg_segments(data) if is_jpeg(data) else None
    header = inspect(data, segments)
    shrink = shrink_for(header.width, header.height, most_pixels, size)
    rows, columns = shrunk(header.height, header.width, shrink)
    memory = spare.take(3 * rows * columns) if spare is not None and segments is not None else None
    pixels = decode(data, header.orientation, shrink, segments=segments, memory=memory)
    if memory is None or not np.may_share_memory(pixels, memory):
        if spare is not None and memory is not None:  # the picture was turned
            spare.give(memory)
        memory = pixels.reshape(-1)
    width, height = header.width, header.height
    if header.orientation > _LAST_WITHOUT_A_TURN:
        width, height = height, width
    return Prepared(pixels, width, height, resize_to_model(pixels, size), memory)


def render(
    picture: Prepared, outputs: Outputs, manifest: ModelManifest, quality: int, spare: Spare | None = None
) -> Rendered:
    """Turn one picture's outputs into detections and draw them into its pixels; its memory is then `spare`'s."""
    detections = detections_of(outputs, manifest, picture.width, picture.height)
    rows, columns = picture.pixels.shape[:2]
    across, down = columns / picture.width, rows / picture.height
    drawn = detections if across == down == 1 else [scaled(found, across, down) for found in detections]
    jpeg = encode_jpeg(annotate(picture.pixels, drawn), quality)
    if spare is not None:
        spare.give(picture.memory)
    return Rendered(detections, jpeg)


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


def cores() -> int:
    """How many this process may use, at least 1: those it may run on, or fewer where its container is limited."""
    mine = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_LIMIT.read_text().split()
        return max(1, min(mine, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such limit, or "max"
        return mine

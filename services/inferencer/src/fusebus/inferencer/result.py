"""The result file: what was found in one image, as deterministic JSON.

Nothing in it depends on when, where or how fast it was made, so that a repeat of the work writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fusebus.contracts.messages import ImageAccepted
from fusebus.models import ModelManifest
from fusebus.vision import Detection
from fusebus.vision.rle import RunLengths

SCHEMA_VERSION = 1


class ResultModel(msgspec.Struct, frozen=True, kw_only=True):
    """Which model saw the image."""

    name: str
    version: str
    sha256: str


class ResultDetection(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found."""

    label: str
    score: float
    """0 to 1, four decimals."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the upright picture, one decimal."""
    mask: RunLengths
    """COCO run lengths over the whole picture, squashed to the size they name."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    schema_version: int = SCHEMA_VERSION
    analysis_id: str
    upload_id: str
    run_id: str
    supplier: str
    image_id: str
    image_sha256: str
    model: ResultModel
    width: int
    """Pixels of the upright picture."""
    height: int
    detections: list[ResultDetection]


def result_json(
    work: ImageAccepted,
    analysis_id: str,
    manifest: ModelManifest,
    size: tuple[int, int],
    detections: Sequence[Detection],
) -> bytes:
    """The file's content; `size` is width and height of the upright picture in pixels."""
    return msgspec.json.encode(
        Result(
            analysis_id=analysis_id,
            upload_id=work.upload_id,
            run_id=work.run_id,
            supplier=work.supplier,
            image_id=work.image_id,
            image_sha256=work.blob.sha256,
            model=ResultModel(name=manifest.name, version=manifest.version, sha256=manifest.sha256),
            width=size[0],
            height=size[1],
            detections=[as_stored(detection) for detection in detections],
        ),
        order="deterministic",
    )


class _Scored(msgspec.Struct):
    score: float


class _Found(msgspec.Struct):
    detections: list[_Scored]


def scores_of(data: bytes) -> list[float]:
    """Of each detection that a result file holds. Raises msgspec.DecodeError."""
    return [found.score for found in msgspec.json.decode(data, type=_Found).detections]


def as_stored(found: Detection) -> ResultDetection:
    """As the file has it, rounded coarser than two batch sizes of the same model differ."""
    x0, y0, x1, y1 = (round(edge, 1) for edge in found.box)
    return ResultDetection(label=found.label, score=round(found.score, 4), box=(x0, y0, x1, y1), mask=found.mask)

"""The result file of a conversion over the bus: deterministic JSON, so that a repeat writes the same bytes."""

from __future__ import annotations

import hashlib

import msgspec

from fusebus.contracts.messages import ImageAccepted
from fusebus.convert.conversion import Converted

SCHEMA_VERSION = 1


class ConversionResult(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    schema_version: int = SCHEMA_VERSION
    analysis_id: str
    upload_id: str
    run_id: str
    supplier: str
    image_id: str
    image_sha256: str
    conversion: str
    """See Target.name."""
    width: int
    """Pixels of the upright picture."""
    height: int
    mode: str
    source_format: str
    frames: int
    """Pictures in the source; the first was taken."""
    sha256: str
    """Of the new file."""
    size: int
    """Bytes of the new file."""


def result_json(work: ImageAccepted, analysis_id: str, conversion: str, made: Converted) -> bytes:
    """The file's content."""
    return msgspec.json.encode(
        ConversionResult(
            analysis_id=analysis_id,
            upload_id=work.upload_id,
            run_id=work.run_id,
            supplier=work.supplier,
            image_id=work.image_id,
            image_sha256=work.blob.sha256,
            conversion=conversion,
            width=made.width,
            height=made.height,
            mode=made.mode,
            source_format=made.source_format,
            frames=made.frames,
            sha256=hashlib.sha256(made.data).hexdigest(),
            size=len(made.data),
        ),
        order="deterministic",
    )

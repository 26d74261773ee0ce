"""What a run came to: the value from which report, mail and summary.json are made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from fusebus.blobs import layout
from fusebus.contracts import display
from fusebus.ledger import Final, FinalKind, RunRow, UploadRow
from fusebus.notifier.listed import Listed, Manifest, Missing

S = TypeVar("S", bound=msgspec.Struct)
NAMES = ("name", "of_name", "manifest")
"""Fields that hold a file's name."""
NOTHING_LISTED = Listed()


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that became a result. `annotated` and `result` are names in the results container."""

    upload_id: str
    name: str
    analysis_id: str
    final: str
    """`analysed` or `converted`."""
    detections: int
    best_score: float
    model: str
    annotated: str
    result: str
    quality: tuple[str, ...] = ()
    """What may have kept the photo from being judged well, short codes."""


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that was refused; `explanation` says what is wrong and the way out."""

    upload_id: str
    name: str
    reason: str
    explanation: str


class Duplicate(msgspec.Struct, frozen=True, kw_only=True):
    """An upload whose photo had come before."""

    upload_id: str
    name: str
    of_upload: str
    of_name: str
    """Empty where the first upload's row is gone."""
    of_run: str
    """The run of the first upload; may be this one."""
    of_annotated: str = ""
    """The earlier result: names in the results container; empty where there is none (yet)."""
    of_result: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that we could not process."""

    upload_id: str
    name: str
    reason: str
    description: str


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Uploads by final; `uploads` is their sum."""

    uploads: int
    analysed: int
    converted: int
    rejected: int
    duplicate: int
    failed: int
    neutrals: int
    """Fuse neutrals in all analysed photos together."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A closed run with all its uploads; names are as stored, untrusted."""

    run_id: str
    supplier: str
    opened_at: datetime
    closed_at: datetime
    pictures: tuple[Picture, ...]
    rejected: tuple[Rejection, ...]
    duplicates: tuple[Duplicate, ...]
    failed: tuple[Failure, ...]
    manifests: tuple[Manifest, ...] = ()
    """Lists of files that came with the run."""
    missing: tuple[Missing, ...] = ()
    """Files that these list and that are not in the run."""
    unlisted: tuple[str, ...] = ()
    """Files that none of them lists, though there is one."""
    reprocess_of: str = ""
    """The run whose photos were analysed again; empty for a delivery."""
    model: str = ""
    """`name@version` that analysed them again."""
    schema_version: int = 1

    @property
    def lost(self) -> tuple[Missing, ...]:
        """Listed files that are not here in any run."""
        return tuple(found for found in self.missing if found.is_lost)

    @property
    def analysed(self) -> tuple[Picture, ...]:
        """Photos that the model has seen."""
        return tuple(found for found in self.pictures if found.final == "analysed")

    @property
    def converted(self) -> tuple[Picture, ...]:
        """Photos that were only converted."""
        return tuple(found for found in self.pictures if found.final == "converted")

    @property
    def counts(self) -> Counts:
        """The uploads by final, adding up."""
        return Counts(
            uploads=len(self.pictures) + len(self.rejected) + len(self.duplicates) + len(self.failed),
            analysed=len(self.analysed),
            converted=len(self.converted),
            rejected=len(self.rejected),
            duplicate=len(self.duplicates),
            failed=len(self.failed),
            neutrals=sum(picture.detections for picture in self.analysed),
        )


def summarise(
    run: RunRow, uploads: Sequence[UploadRow], earlier: Mapping[str, UploadRow], listed: Listed = NOTHING_LISTED
) -> Summary:
    """A run whose uploads are all final, in the order of their names. `earlier`: uploads of other runs by id.

    Raises ValueError where an upload has no final.
    """
    first = {**earlier, **{upload.upload_id: upload for upload in uploads}}
    found: dict[FinalKind, list[Any]] = {kind: [] for kind in FinalKind}
    for upload in sorted(uploads, key=lambda upload: (_natural(upload.blob_name), upload.upload_id)):
        if upload.final is None:
            raise ValueError(f"upload {upload.upload_id} has no final")
        found[upload.final.kind].append(_described(upload, upload.final, first))
    return Summary(
        run_id=run.run_id,
        supplier=run.supplier,
        opened_at=run.opened_at,
        closed_at=run.closed_at or run.last_upload_at,
        pictures=(*found[FinalKind.ANALYSED], *found[FinalKind.CONVERTED]),
        rejected=tuple(found[FinalKind.REJECTED]),
        duplicates=tuple(found[FinalKind.DUPLICATE]),
        failed=tuple(found[FinalKind.FAILED]),
        manifests=listed.manifests,
        missing=listed.missing,
        unlisted=listed.unlisted,
        reprocess_of=run.reprocess_of,
        model=run.model,
    )


def _described(
    upload: UploadRow, final: Final, first: Mapping[str, UploadRow]
) -> Picture | Rejection | Duplicate | Failure:
    who = {"upload_id": upload.upload_id, "name": upload.blob_name}
    match final.kind:
        case FinalKind.REJECTED:
            return Rejection(**who, reason=final.reason, explanation=final.explanation)
        case FinalKind.DUPLICATE:
            return _duplicate(who, final, first.get(final.duplicate_of))
        case FinalKind.FAILED:
            return Failure(**who, reason=final.reason, description=final.explanation)
    return Picture(
        **who,
        analysis_id=final.analysis_id,
        final=final.kind.value,
        detections=final.detections,
        best_score=final.best_score,
        model=final.model,
        annotated=final.annotated.name if final.annotated else "",
        result=final.result.name if final.result else "",
        quality=tuple(note for note in upload.image.quality.split(",") if note) if upload.image else (),
    )


def _duplicate(who: Mapping[str, str], final: Final, first: UploadRow | None) -> Duplicate:
    there = first.final if first else None
    return Duplicate(
        **who,
        of_upload=final.duplicate_of,
        of_name=first.blob_name if first else "",
        of_run=final.duplicate_of_run,
        of_annotated=there.annotated.name if there and there.annotated else "",
        of_result=there.result.name if there and there.result else "",
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders `img2` before `img10`."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"([0-9]{1,18})", name.casefold())]


def summary_name(run_id: str) -> str:
    """Where summary.json lies, beside the report."""
    return layout.report_name(run_id).removesuffix("index.html") + "summary.json"


def summary_json(summary: Summary) -> bytes:
    """summary.json, byte for byte the same for the same run: indented JSON, UTF-8."""
    content = {"run_id": summary.run_id, "counts": msgspec.to_builtins(summary.counts), **msgspec.to_builtins(summary)}
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def presentable(summary: Summary) -> Summary:
    """The same summary with every text from outside made fit to be shown (still to be escaped)."""

    def shown(found: S) -> S:
        texts = {
            field: display.name(value) if field in NAMES and value else display.one_line(value)
            for field in found.__struct_fields__
            if isinstance(value := getattr(found, field), str)
        }
        return msgspec.structs.replace(found, **texts)

    return msgspec.structs.replace(
        shown(summary),
        pictures=tuple(map(shown, summary.pictures)),
        rejected=tuple(map(shown, summary.rejected)),
        duplicates=tuple(map(shown, summary.duplicates)),
        failed=tuple(map(shown, summary.failed)),
        manifests=tuple(map(shown, summary.manifests)),
        missing=tuple(map(shown, summary.missing)),
        unlisted=tuple(map(display.name, summary.unlisted)),
    )

"""The story: one accepted image in; its annotated picture and result file are stored, and its final comes out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from fusebus.blobs import BlobChanged, BlobTooLarge, BlobVanished, StorageUnavailable, layout
from fusebus.bus import Context
from fusebus.contracts.identity import analysis_id
from fusebus.contracts.messages import (
    ImageAccepted,
    ImageAnalysed,
    ImageFailed,
    ImageRejected,
    RejectReason,
    StageTimings,
    StoredBlob,
)
from fusebus.contracts.outcomes import Abandon, Outcome, done, retry
from fusebus.host import log_fields
from fusebus.inferencer.codecs import Codecs, DigestMismatch, prepare, render
from fusebus.inferencer.model import ModelBroken
from fusebus.inferencer.ports import Model, Models, Store
from fusebus.inferencer.result import result_json
from fusebus.vision import ImageError

_log = logging.getLogger(__name__)

MAX_BLOB_BYTES = 512 * 1024 * 1024
"""More is not loaded whatever a message says; ingest's own limit is lower."""


class _Gone(Exception):
    """The blob is not any more what ingest accepted."""

    def __init__(self, reason: RejectReason, detail: Exception) -> None:
        super().__init__(str(detail))
        self.reason = reason


_EXPLANATIONS = {
    RejectReason.BLOB_VANISHED: "The file was deleted before it could be analysed; please upload it again.",
    RejectReason.BLOB_CHANGED: "The file was replaced before it could be analysed; the new version is taken instead.",
}


class _Laps:
    """Seconds of each stage, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """The time since the last end belongs to `stage`."""
        now = time.perf_counter()
        self.seconds[stage], self._last = now - self._last, now


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Handles ImageAccepted of the job kind `detect`."""

    store: Store
    models: Models
    codecs: Codecs
    worker: str
    """Who did it, for operators."""
    jpeg_quality: int = 90
    retry_seconds: float = 10.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def __call__(self, work: ImageAccepted, context: Context) -> Outcome:
        """Analyse one image; every way it can end is here."""
        with log_fields(upload=work.upload_id, run=work.run_id, image=work.image_id):
            try:
                with self.models.lease(work.image_id) as model:  # one version from the first step to the last
                    return done(await self._analyse(work, model))
            except _Gone as error:
                return done(self._rejected(work, error.reason, str(error)))
            except ImageError as error:
                return done(self._failed(work, error.reason, str(error)))
            except DigestMismatch as error:
                return done(self._failed(work, "digest_mismatch", str(error)))
            except BlobTooLarge as error:
                return done(self._failed(work, "too_large", str(error)))
            except ModelBroken as error:
                # The image is sound: another worker shall have it, or this one with the version that is left.
                return Abandon(reason=str(error))
            except StorageUnavailable as error:
                _log.warning("storage did not answer: %s", error)
                return retry("storage_unavailable", error, attempt=context.attempt, first_seconds=self.retry_seconds)

    async def _analyse(self, work: ImageAccepted, model: Model) -> ImageAnalysed:
        laps, run, manifest = _Laps(), self.codecs.run, model.manifest
        data = await self._download(work)
        laps.end("download")
        pixels, model_input = await run(prepare, data, work.blob.sha256, manifest.image_size)
        laps.end("decode")
        answer = await model.detect(model_input)
        laps.end("model")
        detections, jpeg = await run(render, pixels, answer.outputs, manifest, self.jpeg_quality)
        laps.end("annotate")
        analysis = analysis_id(work.image_id, work.job_kind.value, manifest.ref)
        size = (pixels.shape[1], pixels.shape[0])
        annotated = StoredBlob(container=layout.RESULTS, name=layout.annotated_name(work.run_id, analysis))
        result = StoredBlob(container=layout.RESULTS, name=layout.result_name(work.run_id, analysis))
        text = result_json(work, analysis, manifest, size, detections)
        await asyncio.gather(
            self.store.write(annotated.container, annotated.name, jpeg, "image/jpeg"),
            self.store.write(result.container, result.name, text, "application/json"),
        )
        laps.end("upload")
        return ImageAnalysed(
            upload_id=work.upload_id,
            run_id=work.run_id,
            supplier=work.supplier,
            image_id=work.image_id,
            analysis_id=analysis,
            job_kind=work.job_kind,
            model=manifest.ref,
            detections=len(detections),
            best_score=max((found.score for found in detections), default=0.0),
            annotated=annotated,
            result=result,
            timings=StageTimings(**{**laps.seconds, "wait_for_model": answer.waited, "model": answer.took}),
            worker=self.worker,
            analysed_at=self.now(),
        )

    async def _download(self, work: ImageAccepted) -> bytes:
        blob = work.blob
        limit = min(blob.size, MAX_BLOB_BYTES)
        try:
            return await self.store.read(blob.container, blob.name, etag=blob.etag, max_bytes=limit)
        except BlobVanished as error:
            raise _Gone(RejectReason.BLOB_VANISHED, error) from error
        except BlobChanged as error:
            raise _Gone(RejectReason.BLOB_CHANGED, error) from error

    def _rejected(self, work: ImageAccepted, reason: RejectReason, detail: str) -> ImageRejected:
        _log.info("rejected, %s: %s", reason.value, detail)
        return ImageRejected(
            upload_id=work.upload_id,
            run_id=work.run_id,
            supplier=work.supplier,
            reason=reason,
            explanation=_EXPLANATIONS[reason],
            rejected_at=self.now(),
            detail=detail,
        )

    def _failed(self, work: ImageAccepted, reason: str, description: str) -> ImageFailed:
        _log.error("failed, %s: %s", reason, description)
        return ImageFailed(
            upload_id=work.upload_id,
            run_id=work.run_id,
            supplier=work.supplier,
            reason=reason,
            description=description,
            failed_at=self.now(),
        )

"""The story: one accepted image in; its annotated picture and result file are stored, and its final comes out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from fusebus.blobs import (
    BlobChanged,
    BlobTooLarge,
    BlobVanished,
    DigestMismatch,
    StorageUnavailable,
    layout,
    read_accepted,
)
from fusebus.bus import Context
from fusebus.contracts.finals import Gone, failed, gone
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
from fusebus.inferencer import telemetry
from fusebus.inferencer.codecs import Codecs, Rendered, prepare, render
from fusebus.inferencer.model import MemoryLacking, ModelBroken, NotServed, PictureFailed
from fusebus.inferencer.policy import Pace
from fusebus.inferencer.ports import Model, Models, Store
from fusebus.inferencer.result import result_json, scores_of
from fusebus.inferencer.stages import Closed, Passage, Stages
from fusebus.inferencer.urgency import urgency_of
from fusebus.models import ModelManifest
from fusebus.vision import ImageError

_log = logging.getLogger(__name__)

MAX_BLOB_BYTES = 512 * 1024 * 1024
"""More is not loaded whatever a message says; ingest's own limit is lower."""
MAX_RESULT_BYTES = 64 * 1024 * 1024

_DECODE_SOON, _ANNOTATE, _DECODE = range(3)
"""What the codecs' threads do first: feed a hungry model, else finish what is begun, else begin more."""


class _Gone(Exception):
    """The blob is not any more what ingest accepted."""

    def __init__(self, reason: Gone, detail: Exception) -> None:
        super().__init__(str(detail))
        self.reason = reason


class _Overtaken(Exception):
    """Its turn did not come."""


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Handles ImageAccepted of the job kind `detect`."""

    store: Store
    models: Models
    codecs: Codecs
    worker: str
    """Who did it, for operators."""
    stages: Stages = field(default_factory=Stages)
    pace: Pace = field(default_factory=Pace)
    jpeg_quality: int = 90
    annotated_pixels: int = 0
    """Most pixels of the annotated picture, where half, a quarter or an eighth of its edges suffice; 0: any."""
    retry_seconds: float = 10.0
    patience_seconds: float = 600.0
    """How long an image may wait to be begun; a fraction of what the consumer allows for its handling."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def __call__(self, work: ImageAccepted, context: Context) -> Outcome:
        """Analyse one image; every way it can end is here."""
        with log_fields(upload=work.upload_id, run=work.run_id, image=work.image_id):
            try:
                if work.model and (final := await self._found(work)) is not None:
                    return done(final)
                with Passage(urgency_of(work)) as passage:
                    await self._begin(passage)
                    with self.models.lease(work.image_id, work.model) as model:  # one version from first step to last
                        final = await self._analyse(work, model, passage)
                telemetry.passed(passage.laps, work.accepted_at, work.deadline)
                return done(final)
            except Closed:
                return Abandon(reason="stopping before it was begun")
            except _Overtaken:
                # A delivery more, not an attempt: waiting for its turn is no fault of the image.
                return Abandon(reason="more urgent images went first all the time")
            except _Gone as error:
                return done(self._gone(work, error.reason, str(error)))
            except ImageError as error:
                return done(self._failed(work, error.reason, str(error)))
            except DigestMismatch as error:
                return done(self._failed(work, "digest_mismatch", str(error)))
            except BlobTooLarge as error:
                return done(self._failed(work, "too_large", str(error)))
            except PictureFailed as error:  # the model runs on others: to try this one again would change nothing
                return done(self._failed(work, "model_failed", str(error)))
            except MemoryLacking as error:
                return retry("memory_lacking", error, attempt=context.attempt, first_seconds=self.retry_seconds)
            except NotServed as error:  # another worker may have it, or this one after its next look at the registry
                return retry("model_not_served", error, attempt=context.attempt, first_seconds=self.retry_seconds)
            except ModelBroken as error:
                # The image is sound: another worker shall have it, or this one with the version that is left.
                return Abandon(reason=str(error))
            except StorageUnavailable as error:
                _log.warning("storage did not answer: %s", error)
                return retry("storage_unavailable", error, attempt=context.attempt, first_seconds=self.retry_seconds)

    async def _found(self, work: ImageAccepted) -> ImageAnalysed | None:
        """The final of work that was done before: people may order it twice (`fusebus reprocess`), it is done once."""
        analysis = analysis_id(work.image_id, work.job_kind.value, work.model)
        place = layout.result_name(work.run_id, analysis)
        try:
            scores = scores_of(await self.store.read(layout.RESULTS, place, max_bytes=MAX_RESULT_BYTES))
        except (BlobVanished, BlobTooLarge, msgspec.DecodeError):
            return None
        return self._final(work, analysis, work.model, scores, StageTimings())

    async def _begin(self, passage: Passage) -> None:
        """A place to begin in. Raises Closed, _Overtaken."""
        try:
            await passage.into(self.stages.download, self.patience_seconds)
        except TimeoutError as error:
            raise _Overtaken from error

    async def _analyse(self, work: ImageAccepted, model: Model, passage: Passage) -> ImageAnalysed:
        stages, run, urgency, manifest = self.stages, self.codecs.run, passage.urgency, model.manifest
        spare = self.codecs.spare
        data = await self._download(work)
        await passage.into(stages.decode)
        rank = _DECODE_SOON if stages.model_is_hungry else _DECODE
        picture = await run(
            (rank, urgency), prepare, data, work.blob.sha256, manifest.image_size, self.annotated_pixels, spare
        )
        del data  # as soon as it is not needed: up to the setting's `slots` images are in hand
        await passage.into(stages.model)
        answer = await model.detect(picture.model_input, urgency)
        await passage.into(stages.annotate)
        size = (picture.width, picture.height)
        rendering = run((_ANNOTATE, urgency), render, picture, answer.outputs, manifest, self.jpeg_quality, spare)
        del picture
        rendered = await rendering
        await passage.into(stages.upload)
        analysis = analysis_id(work.image_id, work.job_kind.value, manifest.ref)
        await self._store(work, analysis, manifest, size, rendered)
        passage.end()
        seconds = passage.seconds | {"wait_for_model": answer.waited, "model": answer.took}
        self.pace.learn(seconds, answer.took / answer.batch)
        scores = [found.score for found in rendered.detections]
        return self._final(work, analysis, manifest.ref, scores, StageTimings(**seconds))

    async def _store(
        self, work: ImageAccepted, analysis: str, manifest: ModelManifest, size: tuple[int, int], rendered: Rendered
    ) -> None:
        """Writes the two files."""
        text = result_json(work, analysis, manifest, size, rendered.detections)
        drawn, found = _stored(work, analysis)
        picture = self.store.write(drawn.container, drawn.name, rendered.jpeg, "image/jpeg")
        result = self.store.write(found.container, found.name, text, "application/json")
        if work.model:  # who finds the result, as `_found` does, finds the picture too
            await _one_by_one(picture, result)
        else:
            await _both(picture, result)

    def _final(
        self, work: ImageAccepted, analysis: str, model: str, scores: Sequence[float], timings: StageTimings
    ) -> ImageAnalysed:
        annotated, result = _stored(work, analysis)
        return ImageAnalysed(
            upload_id=work.upload_id,
            run_id=work.run_id,
            supplier=work.supplier,
            image_id=work.image_id,
            analysis_id=analysis,
            job_kind=work.job_kind,
            model=model,
            detections=len(scores),
            best_score=max(scores, default=0.0),
            annotated=annotated,
            result=result,
            timings=timings,
            worker=self.worker,
            analysed_at=self.now(),
        )

    async def _download(self, work: ImageAccepted) -> bytes:
        try:
            return await read_accepted(self.store, work.blob, min(work.blob.size, MAX_BLOB_BYTES))
        except BlobVanished as error:
            raise _Gone(RejectReason.BLOB_VANISHED, error) from error
        except BlobChanged as error:
            raise _Gone(RejectReason.BLOB_CHANGED, error) from error

    def _gone(self, work: ImageAccepted, reason: Gone, detail: str) -> ImageRejected:
        _log.info("rejected, %s: %s", reason.value, detail)
        return gone(work, reason, detail, self.now(), done="analysed")

    def _failed(self, work: ImageAccepted, reason: str, description: str) -> ImageFailed:
        _log.error("failed, %s: %s", reason, description)
        return failed(work, reason, description, self.now())


def _stored(work: ImageAccepted, analysis: str) -> tuple[StoredBlob, StoredBlob]:
    """Where the annotated picture and the result file lie."""
    names = layout.annotated_name(work.run_id, analysis), layout.result_name(work.run_id, analysis)
    return StoredBlob(container=layout.RESULTS, name=names[0]), StoredBlob(container=layout.RESULTS, name=names[1])


async def _one_by_one(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None]) -> None:
    try:
        await first
    except BaseException:
        second.close()
        raise
    await second


async def _both(first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None]) -> None:
    """Side by side, at a third of what `asyncio.gather` costs; where the first one fails the second is cancelled."""
    other = asyncio.create_task(second)
    try:
        await first
    except BaseException:
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)  # nothing is written once this has ended
        raise
    await other

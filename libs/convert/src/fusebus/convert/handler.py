"""The story: one accepted image in; its lossless picture and result file are stored, and its final comes out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from fusebus.blobs import (
    BlobChanged,
    BlobTooLarge,
    BlobVanished,
    DigestMismatch,
    StorageUnavailable,
    layout,
    read_accepted,
    require_digest,
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
from fusebus.contracts.outcomes import Outcome, done, retry
from fusebus.convert.conversion import Converted, Target, convert
from fusebus.convert.errors import Unconvertible
from fusebus.convert.memory import Bench, needed
from fusebus.convert.places import MOST_BYTES
from fusebus.convert.result import result_json
from fusebus.host import log_fields

_log = logging.getLogger(__name__)


class Store(Protocol):
    """What we need of fusebus.blobs.Blobs."""

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes:
        """See Blobs.read."""
        ...

    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None:
        """See Blobs.write."""
        ...


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Handles ImageAccepted of the job kind `convert`."""

    store: Store
    threads: Executor
    bench: Bench
    target: Target
    worker: str
    """Node and process, as messages name it."""
    retry_seconds: float = 10.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    async def __call__(self, work: ImageAccepted, context: Context) -> Outcome:
        """Convert it, store both files, report it. A repeat writes the same bytes to the same names."""
        with log_fields(image=work.image_id):
            try:
                return done(await self._convert(work))
            except Unconvertible as error:
                return done(self._failed(work, error.reason.value, str(error)))
            except DigestMismatch as error:
                return done(self._failed(work, "digest_mismatch", str(error)))
            except BlobTooLarge as error:
                return done(self._failed(work, "too_large", str(error)))
            except BlobVanished as error:
                return done(self._gone(work, RejectReason.BLOB_VANISHED, str(error)))
            except BlobChanged as error:
                return done(self._gone(work, RejectReason.BLOB_CHANGED, str(error)))
            except StorageUnavailable as error:
                _log.warning("storage did not answer: %s", error)
                return retry("storage_unavailable", error, attempt=context.attempt, first_seconds=self.retry_seconds)

    async def _convert(self, work: ImageAccepted) -> ImageAnalysed:
        began, blob, target = time.perf_counter(), work.blob, self.target
        data = await read_accepted(self.store, blob, min(blob.size, MOST_BYTES))
        downloaded = time.perf_counter()
        made = await asyncio.wrap_future(self.threads.submit(self._made, data, blob.sha256))
        converted_at = time.perf_counter()
        analysis = analysis_id(work.image_id, work.job_kind.value, target.name)
        name = layout.converted_name(work.run_id, analysis, target.format.value)
        picture = StoredBlob(container=layout.RESULTS, name=name)
        result = StoredBlob(container=layout.RESULTS, name=layout.result_name(work.run_id, analysis))
        text = result_json(work, analysis, target.name, made)
        # One after the other: a result file tells of a picture that is there.
        await self._written(picture, made.data, target.content_type)
        await self._written(result, text, "application/json")
        return ImageAnalysed(
            upload_id=work.upload_id,
            run_id=work.run_id,
            supplier=work.supplier,
            image_id=work.image_id,
            analysis_id=analysis,
            job_kind=work.job_kind,
            model=target.name,
            detections=0,
            best_score=0.0,
            annotated=picture,
            result=result,
            timings=StageTimings(
                download=downloaded - began,
                decode=converted_at - downloaded,  # and encode
                upload=time.perf_counter() - converted_at,
            ),
            worker=self.worker,
            analysed_at=self.now(),
        )

    def _made(self, data: bytes, sha256: str) -> Converted:
        """In a thread: waits for memory and a core."""
        require_digest(data, sha256)
        with self.bench.pixels(needed(data, self.target.format)), self.bench.core() as scratch:
            return convert(data, self.target, scratch)

    async def _written(self, place: StoredBlob, data: bytes, content_type: str) -> None:
        """Storage that lacks its container is no fault of the image: somebody has to see it in a log, not a final."""
        try:
            await self.store.write(place.container, place.name, data, content_type)
        except BlobVanished as error:
            raise StorageUnavailable(f"container {place.container} is missing") from error

    def _gone(self, work: ImageAccepted, reason: Gone, detail: str) -> ImageRejected:
        _log.info("rejected, %s: %s", reason.value, detail)
        return gone(work, reason, detail, self.now(), done="converted")

    def _failed(self, work: ImageAccepted, reason: str, description: str) -> ImageFailed:
        _log.error("failed, %s: %s", reason, description)
        return failed(work, reason, description, self.now())

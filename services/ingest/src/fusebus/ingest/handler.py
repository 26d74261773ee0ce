"""Ingest's story: one arrived blob in; accepted, rejected or duplicate out, entered in the ledger first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from fusebus.blobs import StorageUnavailable
from fusebus.bus import Context
from fusebus.contracts.messages import BlobCreated, Message, StorageEvents
from fusebus.contracts.outcomes import Done, Outcome, Outgoing, Reject, done, retry
from fusebus.host import log_fields
from fusebus.ingest import announcement, policy, telemetry
from fusebus.ingest.admission import Admission
from fusebus.ingest.events import NotNow, taken_apart
from fusebus.ingest.settings import IngestSettings
from fusebus.ingest.validation import BlobSource, Check, examine
from fusebus.ledger import Entered, ImageClaim, LedgerError, UploadEntry, UploadRow
from fusebus.validation import ValidatorUnavailable
from fusebus.vision import MAX_PIXELS

_log = logging.getLogger(__name__)


class Book(Protocol):
    """What ingest writes and reads of the ledger."""

    async def find_upload(self, upload_id: str) -> Entered | None: ...

    async def enter_upload(self, entry: UploadEntry, now: datetime) -> Entered: ...

    async def upload(self, run_id: str, upload_id: str) -> UploadRow | None: ...

    async def claim_image(self, supplier: str, image_id: str, upload_id: str, run_id: str) -> ImageClaim: ...

    async def take_over_image(self, claim: ImageClaim, upload_id: str, run_id: str) -> ImageClaim: ...


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """The handler of topic uploads, with its ports."""

    blobs: BlobSource
    ledger: Book
    check: Check
    clock: Callable[[], datetime]
    settings: IngestSettings
    admission: Admission | None = None
    """None: every supplier is taken, on the settings' terms."""

    async def __call__(self, event: BlobCreated | StorageEvents, context: Context) -> Outcome:
        """One upload in, its messages out. Whatever was entered first stays: a repeat publishes the same again."""
        if isinstance(event, StorageEvents):
            return taken_apart(event)
        place = policy.place_of(event)
        if isinstance(place, policy.NotOurs):
            return Reject(reason=place.reason, description=place.description)
        with log_fields(upload=place.upload_id):
            try:
                entered = await self.ledger.find_upload(place.upload_id)
                if entered is None and self.admission and (held := await self.admission.holds(place)):
                    return done(held)
                entered = entered or await self._enter(place, event)
                messages = await self._tell(entered)
            except NotNow as error:
                _log.info("not entered: %s", error)
                return error.outcome(context.attempt, self.settings.storage_retry_seconds)
            except (StorageUnavailable, LedgerError) as error:
                first = self.settings.storage_retry_seconds
                return retry("storage_unavailable", error, attempt=context.attempt, first_seconds=first)
            except ValidatorUnavailable as error:  # it says nothing of the file
                _log.warning("no verdict: %s", error)
                first = self.settings.storage_retry_seconds
                return retry("validator_unavailable", error, attempt=context.attempt, first_seconds=first)
            look_at = self.clock() + timedelta(seconds=self.settings.run_quiet_seconds)
            return Done((*(Outgoing(message=one) for one in messages), *announcement.run_check(entered, look_at)))

    async def _enter(self, place: policy.Place, event: BlobCreated) -> Entered:
        with telemetry.examining():
            finding = await examine(place, self.blobs, self.check, self._limits)
        terms = await self.admission.record(place.supplier) if self.admission else None
        entry = UploadEntry(
            upload_id=place.upload_id,
            supplier=place.supplier,
            container=place.container,
            blob_name=place.name,
            blob_etag=place.etag,
            size=finding.size,
            content_type=finding.content_type,
            uploaded_at=event.time if event.time.tzinfo else event.time.replace(tzinfo=UTC),
            image=finding.image,
            manifest=finding.manifest,
            reject_reason=finding.objection.reason if finding.objection else None,
            detail=finding.objection.detail if finding.objection else "",
            job_kind=terms.job_kind if terms else None,
            lane=terms.lane if terms else None,
            deadline_seconds=terms.deadline_seconds if terms else None,
        )
        entered = await self.ledger.enter_upload(entry, self.clock())
        if self.admission:
            await self.admission.taken(place)
        verdict = entered.upload.reject_reason or (finding.manifest and "manifest") or "accepted"
        telemetry.entered(str(verdict))
        _log.info("entered", extra={"run": entered.run_id, "verdict": str(verdict), "detail": entered.upload.detail})
        return entered

    async def _tell(self, entered: Entered) -> list[Message]:
        """What the upload's row leads to; nothing where its final is recorded already."""
        upload = entered.upload
        if upload.final is not None:
            return []
        if upload.manifest is not None:
            return announcement.manifest(upload)
        if upload.reject_reason is not None:
            return [announcement.rejected(upload, upload.reject_reason, self._limits)]
        assert upload.image is not None, "what is not rejected is an image"
        claim = await self._claim(upload, upload.image.image_id)
        if claim.upload_id != upload.upload_id:
            return [announcement.duplicate(upload, claim)]
        settings = self.settings
        job_kind, lane = upload.job_kind or settings.job_kind, upload.lane or settings.lane
        allowed = timedelta(seconds=upload.deadline_seconds or settings.deadline_seconds)
        return [announcement.accepted(upload, upload.image, job_kind, lane, allowed)]

    async def _claim(self, upload: UploadRow, image_id: str) -> ImageClaim:
        """Whose image this is; an earlier upload that came to nothing gives it up."""
        me = (upload.upload_id, upload.run_id)
        claim = await self.ledger.claim_image(upload.supplier, image_id, *me)
        if claim.upload_id == upload.upload_id:
            return claim
        holder = await self.ledger.upload(claim.run_id, claim.upload_id)
        final = holder.final.kind.value if holder and holder.final else None
        if not policy.lets_go(final, holder is not None):
            return claim
        _log.info("takes the image over", extra={"from": claim.upload_id, "final": final})
        return await self.ledger.take_over_image(claim, *me)

    @property
    def _limits(self) -> policy.Limits:
        return policy.Limits(max_bytes=self.settings.max_blob_bytes, max_pixels=MAX_PIXELS)

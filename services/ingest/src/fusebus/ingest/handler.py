"""Ingest's story: one arrived blob in; accepted, rejected or duplicate out, entered in the ledger first."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from fusebus.blobs import StorageUnavailable
from fusebus.bus import Context, Lately
from fusebus.contracts.messages import BlobCreated, JobKind, ReleaseRun, StorageEvents
from fusebus.contracts.outcomes import Aside, Done, Outcome, Outgoing, Reject, done, retry
from fusebus.contracts.topology import FEW_UPLOADS, UPLOAD_SESSIONS, upload_lane
from fusebus.host import log_fields
from fusebus.ingest import announcement, policy, telemetry
from fusebus.ingest.admission import Admission
from fusebus.ingest.events import BEGINNINGS, NotNow, taken_apart
from fusebus.ingest.fairness import Turn, Turns, rank_of
from fusebus.ingest.inhand import InHand
from fusebus.ingest.overtaking import Overtaking
from fusebus.ingest.schedule import Schedule, accepted, terms_of, timing_of
from fusebus.ingest.settings import IngestSettings
from fusebus.ingest.validation import BlobSource, Check, examine
from fusebus.ledger import Entered, ImageClaim, LedgerError, UploadEntry, UploadRow
from fusebus.validation import ValidatorUnavailable, Verdict
from fusebus.vision import MAX_PIXELS

_log = logging.getLogger(__name__)

ALONE = 1000  # uploads that are dealt with together, where nobody limits them


class Book(Protocol):
    """What ingest writes and reads of the ledger."""

    async def find_upload(self, upload_id: str) -> Entered | None: ...

    async def enter_upload(self, entry: UploadEntry, now: datetime, *, looked: bool = False) -> Entered: ...

    async def upload(self, run_id: str, upload_id: str) -> UploadRow | None: ...

    async def claim_image(
        self, supplier: str, image_id: str, upload_id: str, run_id: str, job_kind: JobKind
    ) -> ImageClaim: ...

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
    schedule: Schedule | None = None
    """None: every image is announced at once."""
    turns: Turns = field(default_factory=lambda: Turns(ALONE))
    """Of uploads from the first look to the last."""
    judging: Turns = field(default_factory=lambda: Turns(ALONE))
    """Of files in the guarded children."""
    in_hand: InHand = field(default_factory=InHand)
    arrived: Lately = field(default_factory=Lately)
    """Events without a lane."""
    announced: Callable[[policy.Place], bool] = lambda _: False
    """Whether the upload was found by listing: another event of it was sent, or none is needed."""
    overtaking: Overtaking | None = None
    """None: events without a lane are taken in their order."""

    async def __call__(self, event: BlobCreated | StorageEvents | ReleaseRun, context: Context) -> Outcome:
        """One upload in, its messages out. Whatever was entered first stays: a repeat publishes the same again."""
        if isinstance(event, StorageEvents):
            return taken_apart(event)
        if isinstance(event, ReleaseRun):
            return await self._release(event, context)
        place = policy.place_of(event)
        if isinstance(place, policy.NotOurs):
            return Reject(reason=place.reason, description=place.description)
        if place.api in BEGINNINGS:
            return done()  # to judge the file now would refuse it as empty
        lane = context.envelope.upload_lane
        is_second = False
        if lane is None:
            lane = upload_lane(sent := self.arrived.add(place.supplier))
            if sent > FEW_UPLOADS and context.subscription != UPLOAD_SESSIONS:
                if self.overtaking is not None:
                    await self.overtaking.let_pass(context.enqueued_at)
                return Aside(lane=lane, reason="this supplier sent many lately")
            is_second = self.announced(place)
        with log_fields(upload=place.upload_id):
            async with self._turn_of(place, max(rank_of(lane), int(is_second))) as turn:
                return await self._deal_with(place, event, context, turn)

    @asynccontextmanager
    async def _turn_of(self, place: policy.Place, rank: int) -> AsyncIterator[Turn]:
        """The upload's turn, with no other of the same upload: one of the first lane must not wait for another's turn.

        So the others take the upload in hand when their turn has come, and the first lane, whose turns wait for nobody
        of the others, before it: places would else be held by those that wait for one that pauses.
        """
        alone = self.in_hand.alone(place.upload_id)
        async with AsyncExitStack() as stack:
            if not rank:
                await stack.enter_async_context(alone)
            turn = await stack.enter_async_context(self.turns.of(place.supplier, rank))
            if rank:
                await stack.enter_async_context(alone)
            yield turn

    async def _deal_with(self, place: policy.Place, event: BlobCreated, context: Context, turn: Turn) -> Outcome:
        try:
            entered = await self.ledger.find_upload(place.upload_id)
            if entered is None and self.admission and (held := await self.admission.holds(place)):
                return done(held)
            entered = entered or await self._enter(place, event, turn)
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
        return Done((*messages, *announcement.run_check(entered, look_at)))

    async def _release(self, order: ReleaseRun, context: Context) -> Outcome:
        """A window opens, or people want a run's images announced now."""
        if self.schedule is None:
            return Reject(reason="no_schedule", description="this ingest announces at once, nothing waits")
        with log_fields(run=order.run_id):
            try:
                return await self.schedule.release(order)
            except LedgerError as error:
                first = self.settings.storage_retry_seconds
                return retry("storage_unavailable", error, attempt=context.attempt, first_seconds=first)

    async def _enter(self, place: policy.Place, event: BlobCreated, turn: Turn) -> Entered:
        async def check_in_turn(data: bytes) -> Verdict:
            await turn.pause()
            async with self.judging.of(turn.supplier, turn.rank):
                return await self.check(data)

        await turn.pause()
        with telemetry.examining():
            finding = await examine(place, self.blobs, check_in_turn, self._limits)
        await turn.pause()
        terms = await self.admission.record(place.supplier) if self.admission else None
        now = self.clock()
        job_kind = (terms.job_kind if terms else None) or self.settings.job_kind
        timing = timing_of(terms, job_kind, self.settings)
        when, release_at = terms_of(timing, now) if self.schedule and finding.image else ("", None)
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
            job_kind=job_kind,
            lane=terms.lane if terms else None,
            deadline_seconds=terms.deadline_seconds if terms else None,
            when=when,
            release_at=release_at,
        )
        entered = await self.ledger.enter_upload(entry, now, looked=True)
        if self.admission:
            await self.admission.taken(place)
        verdict = entered.upload.reject_reason or (finding.manifest and "manifest") or "accepted"
        telemetry.entered(str(verdict))
        _log.info("entered", extra={"run": entered.run_id, "verdict": str(verdict), "detail": entered.upload.detail})
        return entered

    async def _tell(self, entered: Entered) -> list[Outgoing]:
        """What the upload's row leads to; nothing where its final is recorded already."""
        upload = entered.upload
        if upload.final is not None:
            return []
        if upload.manifest is not None:
            return [Outgoing(message=one) for one in announcement.manifest(upload)]
        if upload.reject_reason is not None:
            return [Outgoing(message=announcement.rejected(upload, upload.reject_reason, self._limits))]
        assert upload.image is not None, "what is not rejected is an image"
        claim = await self._claim(upload, upload.image.image_id)
        if claim.upload_id != upload.upload_id:
            return [Outgoing(message=announcement.duplicate(upload, claim))]
        if self.schedule is None:
            return [Outgoing(message=accepted(upload, entered.run, self.settings))]
        return await self.schedule.announce(entered)

    async def _claim(self, upload: UploadRow, image_id: str) -> ImageClaim:
        """Whose image this is for its job kind; an earlier upload that came to nothing gives it up."""
        me = (upload.upload_id, upload.run_id)
        kind = upload.job_kind or self.settings.job_kind
        claim = await self.ledger.claim_image(upload.supplier, image_id, *me, kind)
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

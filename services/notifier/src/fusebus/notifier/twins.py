"""Decides how an upload ends whose photo another upload brought first: not before that one's end is known."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from enum import Enum

import msgspec

from fusebus.contracts.identity import digest
from fusebus.contracts.messages import BlobCreated, BlobCreatedData, DuplicateFound
from fusebus.contracts.outcomes import Outgoing
from fusebus.ledger import Final, FinalKind, FinalRecorded, UploadRow
from fusebus.notifier.ports import Ports, RunLedger

_log = logging.getLogger(__name__)

LOOKUPS_AT_ONCE = 16  # rows of other runs
SCAN_ABOVE = 100  # uploads that wait for one other run: it is read as a whole then
SOURCE = "/fusebus/notifier/twins"
PASSING = frozenset({"cancelled", "storage_unavailable", "model_not_served", "TTLExpiredException"})
"""Reasons of failures that say nothing of the photo: the same bytes may fare better."""


class Fate(Enum):
    """What becomes of an upload whose photo came before."""

    WAIT = "the first one has no final yet"
    DUPLICATE = "the first one has a result"
    SAME_FAILURE = "the first one failed, and so would the same bytes"
    RELEASE = "the first one came to nothing for a reason of its own: analyse this one"


def fate(first: UploadRow | None) -> Fate:
    """What follows from the upload that brought the photo first; None: its row is gone."""
    if first is None:
        return Fate.RELEASE
    final = first.final
    if final is None:
        return Fate.WAIT
    if final.kind is FinalKind.REJECTED:  # after it had been accepted: deleted or replaced
        return Fate.RELEASE
    if final.kind is FinalKind.FAILED:
        return Fate.RELEASE if final.reason in PASSING else Fate.SAME_FAILURE
    return Fate.DUPLICATE


async def waits(message: DuplicateFound, ledger: RunLedger) -> bool:
    """Whether the upload's end is left open, because that of the first one is.

    What is decided holds for the row as it was read: where somebody else wrote meanwhile, it is decided anew.
    Raises LedgerUnavailable.
    """
    of = (message.duplicate_of, message.duplicate_of_run)
    while (upload := await ledger.upload(message.run_id, message.upload_id)) is not None and upload.final is None:
        first = await ledger.upload(message.duplicate_of_run, message.duplicate_of)
        if first is None or (end := fate(first)) is Fate.DUPLICATE:
            return False
        before = (upload.waits_for, upload.waits_for_run)
        if end is not Fate.WAIT and upload.waits_for and before != of:
            # A repeat of what was found earlier, or what has lost its meaning since: the other one's end decides.
            _log.info("waits for another upload of its photo", extra={"first": upload.waits_for, "not": of[0]})
            return True
        waiting = await ledger.wait_for(message.run_id, message.upload_id, *of, instead_of=before)
        if waiting is not None and waiting.final is None and (waiting.waits_for, waiting.waits_for_run) == of:
            _log.info("waits for the first upload of its photo", extra={"first": message.duplicate_of})
            return True
    return False


def is_waiting(upload: UploadRow) -> bool:
    """Whether its end follows from another upload's."""
    return upload.final is None and bool(upload.waits_for)


async def follow(run_id: str, uploads: Sequence[UploadRow], ports: Ports) -> list[UploadRow]:
    """The run's uploads, those that waited with their finals where these are known now.

    What is released is announced to ingest once more, as its own upload. Raises LedgerUnavailable, PublishFailed.
    """
    waiting = [upload for upload in uploads if is_waiting(upload)]
    if not waiting:
        return list(uploads)
    first = await _first_uploads(run_id, uploads, waiting, ports.ledger)
    after = {upload.upload_id: await _follow(upload, first.get(_first_of(upload)), ports) for upload in waiting}
    return [after.get(upload.upload_id, upload) for upload in uploads]


async def _follow(upload: UploadRow, first: UploadRow | None, ports: Ports) -> UploadRow:
    match fate(first):
        case Fate.WAIT:
            return upload
        case Fate.RELEASE:
            await ports.publish([_announced(upload)])
            _log.warning("is analysed after all", extra={"upload": upload.upload_id, "first": upload.waits_for})
            waited = (upload.waits_for, upload.waits_for_run)  # ingest may have found it the twin of another by now
            released = await ports.ledger.wait_for(upload.run_id, upload.upload_id, "", "", instead_of=waited)
            return released or upload
        case _:
            assert first is not None and first.final is not None
            return await _end(upload, _final(upload, first.final), ports.ledger)


def _final(upload: UploadRow, first: Final) -> Final:
    end = Final(
        kind=FinalKind.DUPLICATE,
        at=first.at,
        duplicate_of=upload.waits_for,
        duplicate_of_run=upload.waits_for_run,
    )
    if first.kind is not FinalKind.FAILED:
        return end
    explanation = f"the same photo failed in upload {upload.waits_for}: {first.explanation}"
    return msgspec.structs.replace(end, kind=FinalKind.FAILED, reason=first.reason, explanation=explanation)


async def _end(upload: UploadRow, final: Final, ledger: RunLedger) -> UploadRow:
    recorded = await ledger.record_final(upload.run_id, upload.upload_id, final)
    if recorded in (FinalRecorded.NEW, FinalRecorded.SAME):
        _log.info("final", extra={"upload": upload.upload_id, "kind": final.kind.value, "reason": final.reason})
        return msgspec.structs.replace(upload, final=final)
    return await ledger.upload(upload.run_id, upload.upload_id) or upload


def _announced(upload: UploadRow) -> Outgoing:
    """The event that ingest had of this upload, under an id that derives from the reason for it."""
    event = BlobCreated(
        id=f"released-{upload.upload_id}",
        source=SOURCE,
        subject=f"/blobServices/default/containers/{upload.container}/blobs/{upload.blob_name}",
        time=upload.uploaded_at,
        data=BlobCreatedData(e_tag=upload.blob_etag, api="Released", content_length=upload.size),
    )
    return Outgoing(message=event, replay=int(digest("released", upload.waits_for)[:6], 16) + 1)


def _first_of(upload: UploadRow) -> tuple[str, str]:
    return upload.waits_for_run, upload.waits_for


async def _first_uploads(
    run_id: str, uploads: Sequence[UploadRow], waiting: Sequence[UploadRow], ledger: RunLedger
) -> dict[tuple[str, str], UploadRow]:
    """Those that are waited for, by run and upload; each run that many wait for is read once."""
    found = {(run_id, upload.upload_id): upload for upload in uploads}
    by_run = Counter(upload.waits_for_run for upload in waiting if upload.waits_for_run != run_id)
    for run, count in by_run.items():
        if count > SCAN_ABOVE:
            found |= {(run, upload.upload_id): upload for upload in (await ledger.contents(run)).uploads}
    wanted = {
        _first_of(upload) for upload in waiting if by_run.get(upload.waits_for_run, 0) in range(1, SCAN_ABOVE + 1)
    }
    room = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    async def one(run: str, upload: str) -> UploadRow | None:
        async with room:
            return await ledger.upload(run, upload)

    rows = await asyncio.gather(*(one(run, upload) for run, upload in wanted))
    return found | {(row.run_id, row.upload_id): row for row in rows if row is not None}

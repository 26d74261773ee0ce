"""What a message says of an upload's end, and its way into the ledger: the first final wins, repeats change nothing."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from fusebus.blobs import layout
from fusebus.bus import DeadLetter
from fusebus.contracts import identity
from fusebus.contracts.messages import (
    BlobCreated,
    DuplicateFound,
    ImageAnalysed,
    ImageFailed,
    ImageRejected,
    JobKind,
)
from fusebus.contracts.outcomes import Done, Outcome, Reject, done
from fusebus.ledger import Final, FinalKind, FinalRecorded
from fusebus.notifier import telemetry
from fusebus.notifier.ports import RunLedger

_log = logging.getLogger(__name__)
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # the same in each look, so that a repeat is a repeat

FinalMessage = ImageAnalysed | ImageFailed | ImageRejected | DuplicateFound


async def record(message: FinalMessage, ledger: RunLedger) -> Outcome:
    """Fold a final into the ledger. Done also where another was first; Reject for what no service of ours says."""
    if (foreign := _foreign(message)) is not None:
        return Reject(reason="foreign_result", description=foreign)
    final = final_of(message)
    recorded = await ledger.record_final(message.run_id, message.upload_id, final)
    match recorded:
        case FinalRecorded.UNKNOWN_UPLOAD:
            return Reject(
                reason="unknown_upload", description=f"run {message.run_id} has no upload {message.upload_id}"
            )
        case FinalRecorded.CONFLICTING:
            _log.warning("another final was first and stays", extra={"kind": final.kind.value, "reason": final.reason})
        case FinalRecorded.NEW:
            _log.info("final", extra={"kind": final.kind.value, "reason": final.reason})
            telemetry.final(final.kind.value)
        case FinalRecorded.SAME:
            _log.debug("final was there already")
    return done()


def was_recorded(outcome: Outcome) -> bool:
    """Whether the upload certainly has a final now."""
    return isinstance(outcome, Done)


def final_of(message: FinalMessage) -> Final:
    """The ledger's form of a message that ends an upload."""
    match message:
        case ImageAnalysed():
            return Final(
                kind=FinalKind.CONVERTED if message.job_kind is JobKind.CONVERT else FinalKind.ANALYSED,
                at=message.analysed_at,
                analysis_id=message.analysis_id,
                model=message.model,
                detections=message.detections,
                best_score=message.best_score,
                annotated=message.annotated,
                result=message.result,
                timings=message.timings,
                worker=message.worker,
            )
        case ImageFailed():
            return Final(
                kind=FinalKind.FAILED, at=message.failed_at, reason=message.reason, explanation=message.description
            )
        case ImageRejected():
            return Final(
                kind=FinalKind.REJECTED,
                at=message.rejected_at,
                reason=message.reason.value,
                explanation=message.explanation,
            )
        case DuplicateFound():
            return Final(
                kind=FinalKind.DUPLICATE,
                at=message.found_at,
                duplicate_of=message.duplicate_of,
                duplicate_of_run=message.duplicate_of_run,
            )


def upload_of(dead: DeadLetter) -> tuple[str, str]:
    """Upload id and run id that a dead letter is about, each empty where it does not say.

    An event names no run: whether its upload was entered, and where, only the ledger knows.
    """
    if dead.envelope is not None and isinstance(event := dead.envelope.message, BlobCreated):
        return identity.upload_id(event.container, event.blob_name, event.data.e_tag), ""
    upload, run = dead.properties.get("upload"), dead.properties.get("run")
    return (upload if isinstance(upload, str) else ""), (run if isinstance(run, str) else "")


def final_of_dead(dead: DeadLetter) -> Final:
    """What a dead letter means for its upload: the final that it carries itself, else a failure with its reason."""
    if dead.envelope is not None:
        message = dead.envelope.message
        if isinstance(message, FinalMessage) and _foreign(message) is None:
            return final_of(message)
    at = dead.enqueued_at or _NEVER
    return Final(kind=FinalKind.FAILED, at=at, reason=dead.reason or "dead_letter", explanation=dead.description)


def _foreign(message: FinalMessage) -> str | None:
    """What is wrong where a result is said to lie outside of what we write: it would be shown to people."""
    if isinstance(message, ImageAnalysed):
        for blob in (message.annotated, message.result):
            if blob.container != layout.RESULTS:
                return f"{blob.container[:80]!r} is not the results container"
    return None

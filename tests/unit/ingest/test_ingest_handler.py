"""The handler with plain ports: what it says of an upload, and that a repeat says the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fusebus.blobs import BlobChanged, BlobProperties, BlobTooLarge, BlobVanished, StorageUnavailable
from fusebus.bus import Context
from fusebus.contracts import identity
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import (
    BlobCreated,
    BlobCreatedData,
    DuplicateFound,
    ImageAccepted,
    ImageRejected,
    JobKind,
    Message,
    RejectReason,
    RunCheck,
)
from fusebus.contracts.outcomes import Done, Outcome, Reject, Retry
from fusebus.host import load_settings
from fusebus.ingest.handler import Ingest
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import Entered, Final, FinalKind, ImageClaim, LedgerError, LedgerUnavailable, UploadEntry, UploadRow
from fusebus.validation import Facts, QualityNote, ValidatorUnavailable, Verdict

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
QUIET = timedelta(seconds=600)


@dataclass
class Store:
    """One container in memory."""

    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """ETag and content by name."""
    written: dict[str, bytes] = field(default_factory=dict)
    read_raises: Exception | None = None
    down: bool = False
    container: bool = True
    copy_status: str = ""

    async def container_exists(self, container: str) -> bool:
        return self.container

    async def properties(self, container: str, name: str) -> BlobProperties | None:
        if self.down:
            raise StorageUnavailable("no answer")
        if name not in self.blobs:
            return None
        etag, data = self.blobs[name]
        return BlobProperties(
            name=name,
            size=len(data),
            etag=etag,
            blob_type="BlockBlob",
            content_type="text/html",
            created_at=NOW,
            modified_at=NOW,
            copy_status=self.copy_status,
        )

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes:
        if self.read_raises:
            raise self.read_raises
        assert etag == self.blobs[name][0], "what is read must be what its properties were looked at of"
        return self.blobs[name][1]

    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None:
        self.written[f"{container}/{name}"] = data


@dataclass
class Book:
    """One run in memory; `fail_at` names a method that raises once."""

    rows: dict[str, UploadRow] = field(default_factory=dict)
    claims: dict[tuple[str, JobKind], ImageClaim] = field(default_factory=dict)
    fail_at: str = ""
    error: type[LedgerError] = LedgerUnavailable

    def _step(self, name: str) -> None:
        if self.fail_at == name:
            self.fail_at = ""
            raise self.error("no answer")

    def _entered(self, upload_id: str) -> Entered:
        return Entered(upload=self.rows[upload_id], opened=upload_id == next(iter(self.rows)))

    async def find_upload(self, upload_id: str) -> Entered | None:
        self._step("find_upload")
        return self._entered(upload_id) if upload_id in self.rows else None

    async def enter_upload(self, entry: UploadEntry, now: datetime, *, looked: bool = False) -> Entered:
        self._step("enter_upload")
        row = UploadRow(**msgspec.structs.asdict(entry), run_id="run", entered_at=now)
        self.rows.setdefault(entry.upload_id, row)
        return self._entered(entry.upload_id)

    async def upload(self, run_id: str, upload_id: str) -> UploadRow | None:
        self._step("upload")
        return self.rows.get(upload_id)

    async def claim_image(
        self, supplier: str, image_id: str, upload_id: str, run_id: str, job_kind: JobKind
    ) -> ImageClaim:
        self._step("claim_image")
        mine = ImageClaim(supplier=supplier, image_id=image_id, upload_id=upload_id, run_id=run_id, job_kind=job_kind)
        return self.claims.setdefault((image_id, job_kind), mine)

    async def take_over_image(self, claim: ImageClaim, upload_id: str, run_id: str) -> ImageClaim:
        self._step("take_over_image")
        key = (claim.image_id, claim.job_kind)
        self.claims[key] = msgspec.structs.replace(claim, upload_id=upload_id, run_id=run_id)
        return self.claims[key]

    def finish(self, upload_id: str, kind: FinalKind) -> None:
        self.rows[upload_id] = msgspec.structs.replace(self.rows[upload_id], final=Final(kind=kind, at=NOW))


async def check(data: bytes) -> Verdict:
    """Content is its own verdict."""
    for word, reason in (
        (b"junk", RejectReason.NOT_AN_IMAGE),
        (b"broken", RejectReason.DAMAGED),
        (b"bomb", RejectReason.TOO_MANY_PIXELS),
        (b"maze", RejectReason.TOO_COMPLEX),
        (b"heic", RejectReason.UNSUPPORTED_FORMAT),
    ):
        if data.startswith(word):
            return Verdict(reason=reason, detail=word.decode())
    if data == b"crowded":
        raise ValidatorUnavailable("no core in time")
    facts = Facts(
        format="jpeg",
        width=40,
        height=30,
        captured_at="2026-01-02T03:04:05",
        camera="X100",
        quality=(QualityNote.BLURRED, QualityNote.TOO_SMALL),
    )
    return Verdict(facts=facts, derivative=b"rebuilt" if data == b"heif allowed" else b"")


@dataclass
class Bench:
    """A handler on its ports, with a clock that goes on."""

    store: Store = field(default_factory=Store)
    book: Book = field(default_factory=Book)
    now: datetime = NOW
    settings: IngestSettings = field(
        default_factory=lambda: load_settings(IngestSettings, "ingest", {"FUSEBUS_INGEST_MAX_BLOB_BYTES": "1000"})
    )

    def upload(self, name: str, content: bytes = b"photo", etag: str = "0x1") -> BlobCreated:
        self.store.blobs[name] = (etag, content)
        return self.event(name, etag)

    def event(self, name: str, etag: str = "0x1", container: str = "in-acme") -> BlobCreated:
        subject = f"/blobServices/default/containers/{container}/blobs/{name}"
        return BlobCreated(id=name, source="s", subject=subject, time=NOW, data=BlobCreatedData(e_tag=f'"{etag}"'))

    def handler(self, **others: Any) -> Ingest:
        ports = {"check": check, "clock": lambda: self.now, "settings": self.settings} | others
        return Ingest(blobs=self.store, ledger=self.book, **ports)

    async def outcome(self, event: BlobCreated, attempt: int = 1) -> Outcome:
        self.now += timedelta(seconds=1)
        return await self.handler()(event, Context(envelope=Envelope(message=event, attempt=attempt)))

    async def told(self, event: BlobCreated) -> list[Message]:
        """The messages but for run checks."""
        outcome = await self.outcome(event)
        assert isinstance(outcome, Done)
        return [one.message for one in outcome.publish if not isinstance(one.message, RunCheck)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def upload_id(name: str, etag: str = "0x1") -> str:
    return identity.upload_id("in-acme", name, etag)


async def test_a_photo_is_accepted_with_its_digest_etag_and_deadline(bench: Bench) -> None:
    (message,) = await bench.told(bench.upload("a", b"photo"))
    assert isinstance(message, ImageAccepted)
    sha256 = hashlib.sha256(b"photo").hexdigest()
    assert message.upload_id == upload_id("a")
    assert message.image_id == identity.image_id("acme", sha256)
    assert (message.blob.container, message.blob.name, message.blob.etag) == ("in-acme", "a", "0x1")
    assert (message.blob.sha256, message.blob.size) == (sha256, 5)
    assert (message.width, message.height, message.format) == (40, 30, "jpeg")
    assert message.deadline - message.accepted_at == timedelta(seconds=bench.settings.deadline_seconds)


async def test_kept_fields_and_warnings_travel_with_an_accepted_photo(bench: Bench) -> None:
    (message,) = await bench.told(bench.upload("a"))
    assert isinstance(message, ImageAccepted)
    assert (message.captured_at, message.camera) == ("2026-01-02T03:04:05", "X100")
    assert message.quality == ("blurred", "too_small")


async def test_the_job_kind_is_kept_in_the_row_whoever_says_it(bench: Bench) -> None:
    convert = msgspec.structs.replace(bench.settings, job_kind=JobKind.CONVERT)
    bench.settings, detect = convert, bench.settings
    event = bench.upload("a")
    (first,) = await bench.told(event)
    assert bench.book.rows[upload_id("a")].job_kind is JobKind.CONVERT, "else nobody else could know it"
    bench.settings = detect
    assert await bench.told(event) == [first], "a repeat says the same"


async def test_where_a_picture_is_rebuilt_the_workers_get_that_one_pinned_by_its_digest(bench: Bench) -> None:
    event = bench.upload("a", b"heif allowed")
    (message,) = await bench.told(event)
    assert isinstance(message, ImageAccepted)
    assert bench.store.written == {f"results/working/{message.image_id}.jpg": b"rebuilt"}
    assert (message.blob.container, message.blob.name) == ("results", f"working/{message.image_id}.jpg")
    assert (message.blob.sha256, message.blob.size) == (hashlib.sha256(b"rebuilt").hexdigest(), 7)
    assert await bench.told(event) == [message]


async def test_where_no_verdict_can_be_had_the_upload_waits_and_nothing_is_entered(bench: Bench) -> None:
    outcome = await bench.outcome(bench.upload("a", b"crowded"))
    assert isinstance(outcome, Retry) and outcome.reason == "validator_unavailable"
    assert bench.book.rows == {}


async def test_the_upload_that_opens_a_run_schedules_the_first_look_at_it_and_no_other_does(bench: Bench) -> None:
    first, second = await bench.outcome(bench.upload("a")), await bench.outcome(bench.upload("b", b"other"))
    assert isinstance(first, Done) and isinstance(second, Done)
    (look,) = [one for one in first.publish if isinstance(one.message, RunCheck)]
    assert look.enqueue_at == NOW + timedelta(seconds=1) + QUIET
    assert isinstance(look.message, RunCheck) and (look.message.run_id, look.message.sequence) == ("run", 0)
    assert not [one for one in second.publish if isinstance(one.message, RunCheck)]
    assert all(one.enqueue_at is None for one in second.publish)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", RejectReason.EMPTY),
        (b"x" * 1001, RejectReason.TOO_LARGE),
        (b"junk", RejectReason.NOT_AN_IMAGE),
        (b"broken", RejectReason.DAMAGED),
        (b"bomb", RejectReason.TOO_MANY_PIXELS),
        (b"maze", RejectReason.TOO_COMPLEX),
        (b"heic", RejectReason.UNSUPPORTED_FORMAT),
    ],
)
async def test_a_refused_upload_is_entered_too_and_its_supplier_told_why(
    bench: Bench, content: bytes, reason: RejectReason
) -> None:
    (message,) = await bench.told(bench.upload("a", content))
    assert isinstance(message, ImageRejected)
    assert (message.reason, message.run_id) == (reason, "run")
    assert message.explanation.endswith(".")
    assert bench.book.rows[upload_id("a")].reject_reason == reason


async def test_a_blob_that_vanished_is_rejected_for_that(bench: Bench) -> None:
    (message,) = await bench.told(bench.event("gone"))
    assert isinstance(message, ImageRejected) and message.reason is RejectReason.BLOB_VANISHED


async def test_an_event_for_a_container_that_nobody_has_opens_no_run(bench: Bench) -> None:
    bench.store.container = False
    outcome = await bench.outcome(bench.event("gone", container="in-ghost"))
    assert outcome == Reject(reason="no_container", description="there is no container in-ghost")
    assert bench.book.rows == {}


async def test_a_blob_that_is_still_being_copied_waits_whatever_its_etag_and_size_are_now(bench: Bench) -> None:
    bench.upload("a", b"", etag="0x2")
    bench.store.copy_status = "pending"
    outcome = await bench.outcome(bench.event("a"), attempt=3)
    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.delay) == ("copy_in_progress", 4 * bench.settings.storage_retry_seconds)
    assert bench.book.rows == {}


async def test_a_copy_whose_event_came_at_its_begin_is_announced_with_the_etag_of_its_end(bench: Bench) -> None:
    bench.upload("a", b"photo", etag="0x2")
    bench.store.copy_status = "success"
    begun = bench.event("a")
    (told,) = await bench.told(msgspec.structs.replace(begun, data=BlobCreatedData(e_tag="0x1", api="CopyBlob")))
    assert isinstance(told, BlobCreated) and (told.blob_name, told.data.e_tag) == ("a", "0x2")
    assert bench.book.rows == {}, "what was never there is no upload"
    (accepted,) = await bench.told(told)
    assert isinstance(accepted, ImageAccepted) and accepted.blob.etag == "0x2"


async def test_a_file_that_has_only_begun_is_not_refused_for_it(bench: Bench) -> None:
    event = bench.upload("a", b"")
    begun = msgspec.structs.replace(event, data=msgspec.structs.replace(event.data, api="CreateFile"))
    assert await bench.told(begun) == [] and not bench.book.rows
    (message,) = await bench.told(bench.upload("a", b"photo", "0x2"))
    assert isinstance(message, ImageAccepted)
    assert await bench.told(begun) == [], "nor when it comes late"
    assert len(bench.book.rows) == 1


async def test_a_copy_that_failed_is_empty_like_any_other_empty_file(bench: Bench) -> None:
    bench.store.copy_status = "failed"
    (message,) = await bench.told(bench.upload("a", b""))
    assert isinstance(message, ImageRejected) and message.reason is RejectReason.EMPTY


async def test_a_blob_that_changed_since_its_event_is_rejected_and_the_new_content_is_not(bench: Bench) -> None:
    old, new = bench.upload("a", b"old", "0x1"), bench.upload("a", b"new", "0x2")
    (message,) = await bench.told(old)
    assert isinstance(message, ImageRejected) and message.reason is RejectReason.BLOB_CHANGED
    (message,) = await bench.told(new)
    assert isinstance(message, ImageAccepted) and message.upload_id == upload_id("a", "0x2")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BlobVanished("x"), RejectReason.BLOB_VANISHED),
        (BlobChanged("x"), RejectReason.BLOB_CHANGED),
        (BlobTooLarge("x"), RejectReason.TOO_LARGE),
    ],
)
async def test_a_blob_may_vanish_change_or_grow_between_its_properties_and_its_bytes(
    bench: Bench, error: Exception, reason: RejectReason
) -> None:
    bench.store.read_raises = error
    (message,) = await bench.told(bench.upload("a"))
    assert isinstance(message, ImageRejected) and message.reason is reason


async def test_the_same_content_again_is_a_duplicate_of_the_first(bench: Bench) -> None:
    await bench.told(bench.upload("a"))
    (message,) = await bench.told(bench.upload("b"))
    assert isinstance(message, DuplicateFound)
    assert (message.upload_id, message.duplicate_of) == (upload_id("b"), upload_id("a"))


async def test_what_was_converted_was_not_analysed_and_the_other_way_round(bench: Bench) -> None:
    await bench.told(bench.upload("a"))
    bench.settings = msgspec.structs.replace(bench.settings, job_kind=JobKind.CONVERT)
    (message,) = await bench.told(bench.upload("b"))
    assert isinstance(message, ImageAccepted) and message.job_kind is JobKind.CONVERT
    (message,) = await bench.told(bench.upload("c"))
    assert isinstance(message, DuplicateFound) and message.duplicate_of == upload_id("b"), "each among its own"


@pytest.mark.parametrize("content", [b"photo", b"junk", b""])
async def test_a_redelivery_says_the_same_again_and_is_never_a_duplicate_of_itself(
    bench: Bench, content: bytes
) -> None:
    event = bench.upload("a", content)
    assert await bench.told(event) == await bench.told(event)


async def test_a_redelivery_stands_by_the_first_verdict_whatever_became_of_the_blob(bench: Bench) -> None:
    accepted, duplicate = bench.upload("a"), bench.upload("b")
    first = [await bench.told(accepted), await bench.told(duplicate)]
    bench.store.blobs.clear()
    assert [await bench.told(accepted), await bench.told(duplicate)] == first


@pytest.mark.parametrize("error", [LedgerUnavailable, LedgerError])
@pytest.mark.parametrize("step", ["find_upload", "enter_upload", "claim_image"])
async def test_a_ledger_that_fails_at_any_step_loses_nothing(bench: Bench, step: str, error: type[LedgerError]) -> None:
    event = bench.upload("a")
    bench.book.fail_at, bench.book.error = step, error
    failed = await bench.outcome(event)
    assert isinstance(failed, Retry) and failed.reason == "storage_unavailable"
    (message,) = await bench.told(event)
    assert isinstance(message, ImageAccepted)
    assert len(bench.book.rows) == 1


@pytest.mark.parametrize("step", ["upload", "take_over_image"])
async def test_a_takeover_that_fails_halfway_is_done_in_the_next_try(bench: Bench, step: str) -> None:
    await bench.told(bench.upload("a"))
    bench.book.finish(upload_id("a"), FinalKind.FAILED)
    event = bench.upload("b")
    bench.book.fail_at = step
    assert isinstance(await bench.outcome(event), Retry)
    (message,) = await bench.told(event)
    assert isinstance(message, ImageAccepted) and message.upload_id == upload_id("b")


async def test_storage_that_is_down_is_asked_again_later_and_nothing_is_entered(bench: Bench) -> None:
    event = bench.upload("a")
    bench.store.down = True
    outcomes = [await bench.outcome(event, attempt) for attempt in (1, 2, 3)]
    assert [outcome.delay for outcome in outcomes if isinstance(outcome, Retry)] == [10.0, 20.0, 40.0]
    assert bench.book.rows == {}


@pytest.mark.parametrize("kind", [FinalKind.FAILED, FinalKind.REJECTED])
async def test_an_image_whose_first_upload_came_to_nothing_is_taken_over_by_the_next(
    bench: Bench, kind: FinalKind
) -> None:
    first = bench.upload("a")
    await bench.told(first)
    bench.book.finish(upload_id("a"), kind)
    second = bench.upload("b")
    for _ in range(2):
        (message,) = await bench.told(second)
        assert isinstance(message, ImageAccepted) and message.upload_id == upload_id("b")
    (message,) = await bench.told(bench.upload("c"))
    assert isinstance(message, DuplicateFound) and message.duplicate_of == upload_id("b")
    assert await bench.told(first) == []


async def test_of_an_upload_with_a_final_only_the_look_at_its_run_is_repeated(bench: Bench) -> None:
    event = bench.upload("a")
    await bench.outcome(event)
    bench.book.finish(upload_id("a"), FinalKind.ANALYSED)
    outcome = await bench.outcome(event)
    assert isinstance(outcome, Done)
    assert [type(one.message) for one in outcome.publish] == [RunCheck]


@pytest.mark.parametrize(
    ("container", "name", "reason"),
    [("results", "a", "not_a_supplier"), ("", "a", "malformed_subject"), ("in-acme", "", "malformed_subject")],
)
async def test_an_event_of_no_supplier_goes_to_the_dead_letter_with_its_reason(
    bench: Bench, container: str, name: str, reason: str
) -> None:
    outcome = await bench.outcome(bench.event(name, container=container))
    assert isinstance(outcome, Reject)
    assert (outcome.reason, outcome.publish) == (reason, ())
    assert bench.book.rows == {}


async def test_an_event_time_without_a_zone_is_utc(bench: Bench) -> None:
    event = msgspec.structs.replace(bench.upload("a"), time=datetime(2026, 1, 2, 3, 4))
    await bench.told(event)
    assert bench.book.rows[upload_id("a")].uploaded_at == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

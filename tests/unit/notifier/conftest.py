"""A world of plain values for the notifier's handler: rows in dictionaries, a clock that stands until it is moved."""

from __future__ import annotations

import email
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import msgspec
import pytest

from fusebus.blobs import BlobProperties, BlobSettings, BlobVanished, layout
from fusebus.bus import BusSettings, ConsumerSettings, Context, DeadLetter
from fusebus.contracts import identity
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import (
    DuplicateFound,
    ImageAnalysed,
    ImageRejected,
    JobKind,
    Message,
    RejectReason,
    RunCheck,
    StageTimings,
    StoredBlob,
)
from fusebus.contracts.outcomes import Outgoing
from fusebus.ledger import (
    Entered,
    Final,
    FinalRecorded,
    Held,
    LedgerSettings,
    LedgerUnavailable,
    MailMarker,
    MailState,
    RunContents,
    RunRow,
    RunState,
    UploadRow,
)
from fusebus.notifier.handler import Handler
from fusebus.notifier.mailers import Channel
from fusebus.notifier.ports import Ports
from fusebus.notifier.settings import NotifierSettings, SmtpSettings

START = datetime(2026, 11, 21, 11, 4, 2, tzinfo=UTC)
SUPPLIER = "northgrid"
RUN = identity.run_id(SUPPLIER, START, "u0" * 4)


class MemoryLedger:
    """The ledger's contract for the notifier without tables; `broken` makes every call fail."""

    def __init__(self) -> None:
        self.runs_by_id: dict[str, RunRow] = {}
        self.held: list[Held] = []
        self.rows: dict[tuple[str, str], UploadRow] = {}
        self.mails: dict[str, MailMarker] = {}
        self.broken = False
        self.scans = 0

    def _work(self) -> None:
        if self.broken:
            raise LedgerUnavailable("broken for this test")

    async def run(self, run_id: str) -> RunRow | None:
        self._work()
        return self.runs_by_id.get(run_id)

    async def upload(self, run_id: str, upload_id: str) -> UploadRow | None:
        self._work()
        return self.rows.get((run_id, upload_id))

    async def find_upload(self, upload_id: str) -> Entered | None:
        self._work()
        rows = [row for (_, upload), row in self.rows.items() if upload == upload_id]
        opened = bool(rows) and self.runs_by_id[rows[0].run_id].first_upload_id == upload_id
        return Entered(upload=rows[0], opened=opened) if rows else None

    async def contents(self, run_id: str) -> RunContents:
        self._work()
        self.scans += 1
        rows = [row for (run, _), row in self.rows.items() if run == run_id]
        return RunContents([row for row in rows if row.manifest is None], [row for row in rows if row.manifest])

    async def runs(self, supplier: str | None = None, limit: int = 100) -> list[RunRow]:
        self._work()
        return sorted(self.runs_by_id.values(), key=lambda run: run.opened_at, reverse=True)[:limit]

    async def held_uploads(self, supplier: str) -> list[Held]:
        self._work()
        return self.held

    async def wait_for(
        self, run_id: str, upload_id: str, of: str, of_run: str, *, instead_of: tuple[str, str] | None = None
    ) -> UploadRow | None:
        self._work()
        row = self.rows.get((run_id, upload_id))
        if row is None or row.final is not None or instead_of not in (None, (row.waits_for, row.waits_for_run)):
            return row
        self.rows[run_id, upload_id] = msgspec.structs.replace(row, waits_for=of, waits_for_run=of_run)
        return self.rows[run_id, upload_id]

    async def record_final(self, run_id: str, upload_id: str, final: Final) -> FinalRecorded:
        self._work()
        row = self.rows.get((run_id, upload_id))
        if row is None:
            return FinalRecorded.UNKNOWN_UPLOAD
        if row.final is not None:
            return FinalRecorded.SAME if row.final.agrees_with(final) else FinalRecorded.CONFLICTING
        self.rows[run_id, upload_id] = msgspec.structs.replace(row, final=final)
        return FinalRecorded.NEW

    async def close_run(
        self, run_id: str, now: datetime, *, requested_by: str = "", unchanged: RunRow | None = None
    ) -> RunRow | None:
        self._work()
        run = self.runs_by_id.get(run_id)
        if run is not None and run.state is RunState.OPEN and unchanged in (None, run):
            run = msgspec.structs.replace(run, state=RunState.CLOSED, closed_at=now, close_requested_by=requested_by)
            self.runs_by_id[run_id] = run
        return run

    async def complete_run(self, run_id: str, now: datetime) -> RunRow | None:
        self._work()
        run = self.runs_by_id[run_id]
        if run.state is RunState.CLOSED:
            self.runs_by_id[run_id] = msgspec.structs.replace(run, state=RunState.COMPLETE, completed_at=now)
        return self.runs_by_id[run_id]

    async def mail_marker(self, run_id: str) -> MailMarker | None:
        self._work()
        return self.mails.get(run_id)

    async def intend_mail(self, run_id: str, message_id: str, by: str, now: datetime) -> MailMarker:
        self._work()
        marker = MailMarker(run_id=run_id, message_id=message_id, intended_at=now, intended_by=by, tried_at=now)
        return self.mails.setdefault(run_id, marker)

    async def repeat_mail(self, marker: MailMarker, by: str, now: datetime) -> MailMarker | None:
        self._work()
        if self.mails[marker.run_id] != marker or marker.done_at is not None:
            return None
        first = now if marker.state is MailState.NOT_SENT else marker.intended_at
        return self._set(
            marker,
            intended_at=first,
            intended_by=by,
            tries=marker.tries + 1,
            tried_at=now,
            state=MailState.INTENDED,
            detail="",
        )

    async def mail_done(self, run_id: str, now: datetime) -> MailMarker | None:
        self._work()
        return self._set(self.mails[run_id], state=MailState.DONE, done_at=now)

    async def mail_failed(self, marker: MailMarker, state: MailState, detail: str) -> MailMarker | None:
        self._work()
        return self._set(marker, state=state, detail=detail) if self.mails[marker.run_id] == marker else None

    def _set(self, marker: MailMarker, **fields: object) -> MailMarker:
        self.mails[marker.run_id] = msgspec.structs.replace(marker, **fields)
        return self.mails[marker.run_id]


class MemoryResults(dict[str, bytes]):
    """The results container; what lies in others is kept with the container before its name."""

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes:
        if (key := self._key(container, name)) not in self:
            raise BlobVanished(name)
        return self[key]

    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None:
        assert container in (layout.RESULTS, f"to-{SUPPLIER}")
        self[self._key(container, name)] = data

    async def properties(self, container: str, name: str) -> BlobProperties | None:
        data = self.get(self._key(container, name))
        if data is None:
            return None
        return BlobProperties(
            name=name,
            size=len(data),
            etag=identity.digest(data),
            blob_type="BlockBlob",
            content_type="",
            created_at=START,
            modified_at=START,
        )

    async def create(self, container: str, name: str, data: bytes, content_type: str) -> str:
        await self.write(container, name, data, content_type)
        return identity.digest(data)

    async def replace(self, container: str, name: str, data: bytes, content_type: str, etag: str) -> str:
        assert etag == identity.digest(self[self._key(container, name)])
        return await self.create(container, name, data, content_type)

    async def create_container(self, container: str) -> None:
        raise AssertionError("nothing is missing here")

    def _key(self, container: str, name: str) -> str:
        return name if container == layout.RESULTS else f"{container}/{name}"


@dataclass
class RecordingMailer:
    """Keeps what it is given; `failures` are raised first, one for each send."""

    sent: list[EmailMessage] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    tries: int = 0

    async def send(self, message: EmailMessage) -> None:
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(message)

    @property
    def ids(self) -> list[str]:
        return [str(message["Message-ID"]) for message in self.sent]


@dataclass
class DeadLetters:
    """Dead letters by queue, in pages of two."""

    queues: dict[str, list[DeadLetter]] = field(default_factory=dict)

    async def peek_dead_letters(self, topic: str, subscription: str, after_sequence: int = 0) -> list[DeadLetter]:
        found = self.queues.get(f"{topic}/{subscription}", [])
        return [dead for dead in found if dead.sequence > after_sequence][:2]

    def add(
        self,
        queue: str,
        message: Message,
        reason: str = "gave_up",
        description: str = "it failed",
        enqueued_at: datetime = START,
    ) -> DeadLetter:
        envelope = Envelope(message=message)
        found = self.queues.setdefault(queue, [])
        dead = DeadLetter(
            sequence=len(found) + 1,
            message_id=envelope.message_id,
            reason=reason,
            description=description,
            enqueued_at=enqueued_at,
            delivery_count=1,
            properties=envelope.properties(),
            body=b"{}",
            envelope=envelope,
        )
        found.append(dead)
        return dead


@dataclass
class World:
    """Everything around one handler. `restart` gives a handler that remembers nothing, as after kill -9."""

    now: datetime = START
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    results: MemoryResults = field(default_factory=MemoryResults)
    mailer: RecordingMailer = field(default_factory=RecordingMailer)
    dead: DeadLetters = field(default_factory=DeadLetters)
    runs_channel: Channel | None = None
    alerts_channel: Channel | None = None
    published: list[Outgoing] = field(default_factory=list)
    settings: NotifierSettings = field(
        default_factory=lambda: NotifierSettings(
            bus=BusSettings(),
            consumer=ConsumerSettings(),
            blobs=BlobSettings(),
            ledger=LedgerSettings(),
            smtp=SmtpSettings(),
        )
    )
    handler: Handler = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        async def shrink(data: bytes) -> bytes:
            return data[:100]

        self.handler = Handler(
            Ports(
                settings=self.settings,
                ledger=self.ledger,
                results=self.results,
                dead_letters=self.dead,
                publish=self.publish,
                mailer=self.mailer,
                shrink=shrink,
                clock=lambda: self.now,
                life="this-process",
                runs_channel=self.runs_channel,
                alerts_channel=self.alerts_channel,
            )
        )

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        self.published += outgoing

    def configure(self, **fields: object) -> None:
        self.settings = msgspec.structs.replace(self.settings, **fields)
        self.restart()

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def enter(self, *uploads: str, run: str = RUN) -> None:
        """What ingest does: uploads into an open run."""
        for upload in uploads:
            self.ledger.rows[run, upload] = UploadRow(
                upload_id=upload,
                supplier=SUPPLIER,
                container="in-northgrid",
                blob_name=f"site/{upload}.jpg",
                blob_etag="e",
                size=1,
                uploaded_at=self.now,
                run_id=run,
                entered_at=self.now,
            )
        first = self.ledger.runs_by_id.get(run)
        self.ledger.runs_by_id[run] = RunRow(
            run_id=run,
            supplier=SUPPLIER,
            state=RunState.OPEN,
            opened_at=first.opened_at if first else self.now,
            first_upload_id=uploads[0],
            last_upload_at=self.now,
        )

    async def take(self, message: Message, attempt: int = 1) -> object:
        return await self.handler(message, Context(envelope=Envelope(message=message, attempt=attempt)))

    @property
    def run(self) -> RunRow:
        return self.ledger.runs_by_id[RUN]


def _analysed(upload: str, run: str = RUN, detections: int = 2) -> ImageAnalysed:
    analysis = identity.digest(upload)
    return ImageAnalysed(
        upload_id=upload,
        run_id=run,
        supplier=SUPPLIER,
        image_id=f"i-{upload}",
        analysis_id=analysis,
        job_kind=JobKind.DETECT,
        model="demo-1",
        detections=detections,
        best_score=0.97,
        annotated=StoredBlob(container=layout.RESULTS, name=layout.annotated_name(run, analysis)),
        result=StoredBlob(container=layout.RESULTS, name=layout.result_name(run, analysis)),
        timings=StageTimings(model=0.1),
        worker="w",
        analysed_at=START,
    )


@dataclass(frozen=True)
class Make:
    """Messages about the one run of a test."""

    run_id: str = RUN

    def analysed(self, upload: str, detections: int = 2) -> ImageAnalysed:
        return _analysed(upload, RUN, detections)

    def rejected(self, upload: str, reason: RejectReason = RejectReason.DAMAGED) -> ImageRejected:
        return ImageRejected(
            upload_id=upload,
            run_id=RUN,
            supplier=SUPPLIER,
            reason=reason,
            explanation="The picture is damaged. Please export it again and upload it under a new name.",
            rejected_at=START,
        )

    def duplicate(self, upload: str, of: str, of_run: str = RUN) -> DuplicateFound:
        return DuplicateFound(
            upload_id=upload,
            run_id=RUN,
            supplier=SUPPLIER,
            image_id="i",
            duplicate_of=of,
            duplicate_of_run=of_run,
            found_at=START,
        )

    def check(self, sequence: int = 0) -> RunCheck:
        return RunCheck(run_id=RUN, supplier=SUPPLIER, sequence=sequence)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def read_mail() -> Callable[[bytes], EmailMessage]:
    """Parse a mail's bytes as a mail program does."""
    return lambda data: email.message_from_bytes(data, policy=email.policy.default)  # type: ignore[arg-type,return-value]

"""What the notifier needs of the world, as narrow as it uses it: the ledger, the results, dead letters, mail, time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fusebus.blobs import BlobProperties
from fusebus.bus import DeadLetter
from fusebus.contracts.outcomes import Outgoing
from fusebus.ledger import Entered, Final, FinalRecorded, Held, MailMarker, MailState, RunContents, RunRow, UploadRow
from fusebus.notifier.mailers import Channel, Mailer
from fusebus.notifier.settings import NotifierSettings


class RunLedger(Protocol):
    """The ledger's part that the notifier reads and writes; fusebus.ledger.Ledger has it."""

    async def run(self, run_id: str) -> RunRow | None: ...
    async def upload(self, run_id: str, upload_id: str) -> UploadRow | None: ...
    async def find_upload(self, upload_id: str) -> Entered | None: ...
    async def runs(self, supplier: str | None = None, limit: int = 100) -> list[RunRow]: ...
    async def contents(self, run_id: str) -> RunContents: ...
    async def held_uploads(self, supplier: str) -> list[Held]: ...
    async def wait_for(
        self, run_id: str, upload_id: str, of: str, of_run: str, *, instead_of: tuple[str, str] | None = None
    ) -> UploadRow | None: ...
    async def record_final(self, run_id: str, upload_id: str, final: Final) -> FinalRecorded: ...
    async def cancel_run(self, run_id: str, now: datetime, *, by: str, reason: str = "") -> RunRow | None: ...
    async def close_run(
        self, run_id: str, now: datetime, *, requested_by: str = "", unchanged: RunRow | None = None
    ) -> RunRow | None: ...
    async def complete_run(self, run_id: str, now: datetime) -> RunRow | None: ...
    async def mail_marker(self, run_id: str) -> MailMarker | None: ...
    async def intend_mail(self, run_id: str, message_id: str, by: str, now: datetime) -> MailMarker: ...
    async def repeat_mail(self, marker: MailMarker, by: str, now: datetime) -> MailMarker | None: ...
    async def mail_done(self, run_id: str, now: datetime) -> MailMarker | None: ...
    async def mail_failed(self, marker: MailMarker, state: MailState, detail: str) -> MailMarker | None: ...


class ResultStore(Protocol):
    """The results container, and the suppliers' containers of receipts, by fusebus.blobs.Blobs."""

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes: ...
    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None: ...
    async def properties(self, container: str, name: str) -> BlobProperties | None: ...
    async def create(self, container: str, name: str, data: bytes, content_type: str) -> str: ...
    async def replace(self, container: str, name: str, data: bytes, content_type: str, etag: str) -> str: ...
    async def create_container(self, container: str) -> None: ...


class DeadLetterQueues(Protocol):
    """Dead letters to look at, never to take; fusebus.bus.Bus has it."""

    async def peek_dead_letters(self, topic: str, subscription: str, after_sequence: int = 0) -> list[DeadLetter]: ...


Publish = Callable[[Sequence[Outgoing]], Awaitable[None]]
"""Sends what belongs to no message that is handled. Raises PublishFailed."""

Shrink = Callable[[bytes], Awaitable[bytes]]
"""A picture's JPEG bytes to its thumbnail's. Raises fusebus.vision.ImageError."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Everything a handler may touch."""

    settings: NotifierSettings
    ledger: RunLedger
    results: ResultStore
    dead_letters: DeadLetterQueues
    publish: Publish
    mailer: Mailer
    shrink: Shrink
    clock: Callable[[], datetime]
    life: str
    """Names this process's life in mail markers."""
    runs_channel: Channel | None = None
    """Where each run's card goes; None: nowhere."""
    alerts_channel: Channel | None = None
    handed_over: set[str] = field(default_factory=set)
    """Keys of mails and cards that are out although their markers could not say so yet."""


Thumbnails = Mapping[str, bytes]
"""JPEG bytes by upload id."""

"""What the notifier needs of the world, as narrow as it uses it: the ledger, the results, dead letters, mail, time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fusebus.bus import DeadLetter
from fusebus.ledger import Entered, Final, FinalRecorded, MailMarker, MailState, RunRow, UploadRow
from fusebus.notifier.mailers import Mailer
from fusebus.notifier.settings import NotifierSettings


class RunLedger(Protocol):
    """The ledger's part that the notifier reads and writes; fusebus.ledger.Ledger has it."""

    async def run(self, run_id: str) -> RunRow | None: ...
    async def upload(self, run_id: str, upload_id: str) -> UploadRow | None: ...
    async def find_upload(self, upload_id: str) -> Entered | None: ...
    async def uploads(self, run_id: str) -> list[UploadRow]: ...
    async def record_final(self, run_id: str, upload_id: str, final: Final) -> FinalRecorded: ...
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
    """The results container, by fusebus.blobs.Blobs."""

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes: ...
    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None: ...


class DeadLetterQueues(Protocol):
    """Dead letters to look at, never to take; fusebus.bus.Bus has it."""

    async def peek_dead_letters(self, topic: str, subscription: str, after_sequence: int = 0) -> list[DeadLetter]: ...


Shrink = Callable[[bytes], Awaitable[bytes]]
"""A picture's JPEG bytes to its thumbnail's. Raises fusebus.vision.ImageError."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Everything a handler may touch."""

    settings: NotifierSettings
    ledger: RunLedger
    results: ResultStore
    dead_letters: DeadLetterQueues
    mailer: Mailer
    shrink: Shrink
    clock: Callable[[], datetime]
    life: str
    """Names this process's life in mail markers."""
    handed_over: set[str] = field(default_factory=set)
    """Keys of mails that are out although their markers could not say so yet."""


Thumbnails = Mapping[str, bytes]
"""JPEG bytes by upload id."""

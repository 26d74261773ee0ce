"""The ledger's rows as frozen structs: what everybody may read, and who writes it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from fusebus.contracts.messages import JobKind, Lane, RejectReason, StageTimings, StoredBlob


class RunState(StrEnum):
    """A run takes uploads while open; once closed it only waits for finals."""

    OPEN = "open"
    CLOSED = "closed"
    COMPLETE = "complete"


class FinalKind(StrEnum):
    """How an upload ended; each has exactly one."""

    ANALYSED = "analysed"
    CONVERTED = "converted"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    FAILED = "failed"


class FinalRecorded(StrEnum):
    """What became of a final: the first one stays."""

    NEW = "new"
    SAME = "same"
    CONFLICTING = "conflicting"
    """Another final was there first and stays."""
    UNKNOWN_UPLOAD = "unknown_upload"


class Final(msgspec.Struct, frozen=True, kw_only=True):
    """An upload's end, written by the notifier alone. Fields that a kind has no use for keep their defaults."""

    kind: FinalKind
    at: datetime
    reason: str = ""
    """A short code: of a rejection (see RejectReason) or a failure."""
    explanation: str = ""
    """One sentence: for the supplier of a rejection, for ops of a failure."""
    analysis_id: str = ""
    model: str = ""
    detections: int = 0
    best_score: float = 0.0
    annotated: StoredBlob | None = None
    result: StoredBlob | None = None
    duplicate_of: str = ""
    """The upload id that came first, and its run."""
    duplicate_of_run: str = ""
    timings: StageTimings | None = None
    worker: str = ""

    def agrees_with(self, other: Final) -> bool:
        """Whether both say the same of the upload; who said it, when and in which words may differ."""
        return self._gist() == other._gist()

    def _gist(self) -> tuple[str, ...]:
        return self.kind, self.reason, self.analysis_id, self.duplicate_of


class Working(msgspec.Struct, frozen=True, kw_only=True):
    """The rebuilt picture that is analysed instead of an original which the workers don't read."""

    name: str
    """In the results container."""
    sha256: str
    size: int
    """Bytes."""


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What ingest found in an upload's bytes."""

    image_id: str
    sha256: str
    """Of the bytes, hexadecimal."""
    format: str
    """`jpeg`, `png`, `webp` or `heif`."""
    width: int
    """Pixels, as stored (before EXIF orientation)."""
    height: int
    captured_at: str = ""
    """As the camera says: local time, ISO 8601, with an offset where it knows it."""
    camera: str = ""
    quality: str = ""
    """Warnings, short codes with commas between."""
    working: Working | None = None
    """None where the original itself is analysed."""


class ManifestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What ingest read in a manifest, which lists the files of a delivery; it is no photo and has no final."""

    listed: int = 0
    """Files that it names."""
    names: str = ""
    """Blob of ours in the results container with their full names; empty where the manifest is refused."""
    sha256: str = ""
    """Of that blob, hexadecimal."""
    refused: str = ""
    """A short code; empty where it is taken."""
    explanation: str = ""
    """One sentence for the supplier of a refused one: what is wrong and the way out."""


class UploadEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What ingest enters, its verdict included: one of `image` (accepted), `reject_reason`, `manifest` is set."""

    upload_id: str
    supplier: str
    container: str
    blob_name: str
    """Data that may hold anything: never part of a key or a path."""
    blob_etag: str
    """Without quotes."""
    size: int
    """Bytes."""
    uploaded_at: datetime
    content_type: str = ""
    """As the uploader claims."""
    image: ImageFacts | None = None
    reject_reason: RejectReason | None = None
    detail: str = ""
    """For ops: what exactly was found."""
    job_kind: JobKind | None = None
    """The supplier's own terms, or else ingest's settings, when it arrived; None: of an older release."""
    lane: Lane | None = None
    deadline_seconds: float | None = None
    """As its lane the supplier's own when it arrived; None: ingest's settings."""
    manifest: ManifestFacts | None = None
    """Set where the upload is a manifest, taken or refused."""
    when: str = ""
    """The timing (see contracts.timing) that it waits for; empty: none, it is announced as soon as it is entered."""
    release_at: datetime | None = None
    """When it is announced; None beside a `when`: when people say so."""


class UploadRow(UploadEntry, frozen=True, kw_only=True):
    """An upload in its run."""

    run_id: str
    entered_at: datetime
    final: Final | None = None
    waits_for: str = ""
    """The upload that brought this one's photo first and has no final yet: this one's follows from it."""
    waits_for_run: str = ""
    reprocess_of: str = ""
    """In a run of `fusebus reprocess`: the upload that is analysed again."""
    version: str = ""
    """The row's own ETag; empty where it was not read from the table."""

    def begins_at(self, run: RunRow | None) -> datetime | None:
        """When its work may begin, by its own timing or by people's word on its run; None: when people say so."""
        if not self.when:
            return self.entered_at
        known = [moment for moment in (self.release_at, run.released_at if run else None) if moment is not None]
        return max(self.entered_at, min(known)) if known else None

    def waits(self, run: RunRow | None, now: datetime) -> bool:
        """Whether its work may not begin yet."""
        begins = self.begins_at(run)
        return self.final is None and self.image is not None and (begins is None or now < begins)


class Entered(msgspec.Struct, frozen=True, kw_only=True):
    """Where an upload is, with the verdict that was entered first: a repeat publishes that one."""

    upload: UploadRow
    opened: bool
    """Whether this upload opened its run; a repeat says the same."""
    run: RunRow | None = None
    """The run's header of the same moment."""

    @property
    def run_id(self) -> str:
        return self.upload.run_id


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One supplier's delivery. Ingest creates and touches it, the notifier closes and completes it."""

    run_id: str
    supplier: str
    state: RunState
    opened_at: datetime
    first_upload_id: str
    last_upload_at: datetime
    """When an upload last entered; the run is quiet since then."""
    closed_at: datetime | None = None
    completed_at: datetime | None = None
    close_requested_by: str = ""
    """Who asked for it; empty where the run closed because it was quiet."""
    reprocess_of: str = ""
    """The run whose photos are analysed again; empty for a delivery."""
    model: str = ""
    """`name@version` that they are analysed with."""
    released_at: datetime | None = None
    """When people said that its photos wait for nothing any more (`fusebus run-now`)."""
    released_by: str = ""
    lane: Lane | None = None
    """People's word in place of its uploads' lanes."""
    cancelled_at: datetime | None = None
    """When people said that what has no final yet shall not be processed (`fusebus cancel`)."""
    cancelled_by: str = ""
    cancel_reason: str = ""
    version: str = ""
    """The row's own ETag."""


class ImageClaim(msgspec.Struct, frozen=True, kw_only=True):
    """Which upload brought an image first for a job kind: all others are duplicates of it."""

    supplier: str
    image_id: str
    upload_id: str
    run_id: str
    job_kind: JobKind = JobKind.DETECT
    version: str = ""
    """The row's own ETag."""


class MailState(StrEnum):
    """What is known of a mail."""

    INTENDED = "intended"
    """Somebody is sending it, or its sender died: it may or may not be out."""
    NOT_SENT = "not_sent"
    """The last try certainly failed; a later one may succeed."""
    DONE = "done"
    REFUSED = "refused"
    """It will never be taken; people see why in `detail`."""
    UNKNOWN = "unknown"
    """Too late to repeat a try whose outcome nobody knows; people decide."""


class MailMarker(msgspec.Struct, frozen=True, kw_only=True):
    """A run's e-mail: an intent before sending, done after it."""

    run_id: str
    """Or what else the mail is about: any key, one mail for each."""
    message_id: str
    """The Message-ID header, the same in every repeat."""
    intended_at: datetime
    intended_by: str
    """The process that sends; another one may only repeat after `repeat_mail`."""
    tries: int = 1
    tried_at: datetime | None = None
    """When the last try began; None in rows of earlier releases."""
    state: MailState = MailState.INTENDED
    detail: str = ""
    """How the last try failed."""
    done_at: datetime | None = None
    version: str = ""
    """The row's own ETag."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the dispatcher decided for a pool, and why; written when it differs from the one before."""

    pool: str
    decided_at: datetime
    nodes: int
    workers: int
    because: str
    dedicated: int = 0
    """Of `nodes`; the rest is Spot."""
    mode: str = "acting"
    """See PoolStatus."""
    late: bool = False
    """Whether some work could not be done in time with it; `because` says how much."""
    facts: dict[str, str | int | float | bool] = {}
    """What it knew, by short name (letters, digits, single underscores); what was unknown is absent."""


class CostSample(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool's nodes cost over one interval, in every node state."""

    pool: str
    started_at: datetime
    """Names the sample together with the pool: a repeat of the same interval does not count twice."""
    ended_at: datetime
    node_seconds: float
    cost: float
    currency: str
    estimated: bool
    """True until the bill says the same."""
    detail: str = ""
    """Price and its source."""
    vm_size: str = ""
    serves: str = ""
    """The job kind that the pool works for; empty: any."""
    spot_node_seconds: float = 0.0
    """Of `node_seconds`; the rest is dedicated."""
    seconds_by_state: dict[str, float] = {}
    """Of `node_seconds`, by what the node did: `starting`, `idle`, `running` and so on."""


class BilledDay(msgspec.Struct, frozen=True, kw_only=True):
    """What the bill says of one service on one day; it may still change for some days."""

    day: str
    """YYYY-MM-DD, UTC."""
    service: str
    """As the bill calls it, for example `Virtual Machines`."""
    cost: float
    currency: str
    read_at: datetime


class CostOfMonth(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of a month's samples."""

    month: str
    """YYYY-MM, UTC."""
    samples: int
    node_seconds: float
    cost: dict[str, float]
    """By currency; empty where there is no sample."""
    estimated: bool
    """Whether any of it is."""

"""Every message that travels between services: frozen structs, tagged by type, with a schema version.

Contracts grow by addition: a new field has a default, a golden file in tests/unit/contracts/golden decodes for ever.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from urllib.parse import unquote

import msgspec

from fusebus.contracts.identity import digest, upload_id

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Supplier = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9]|-(?=[a-z0-9])){0,58}[a-z0-9]\Z")]
"""Part of a container name (`in-<supplier>`): 2 to 60 lower-case letters, digits and single dashes."""

SUPPLIER_CONTAINER_PREFIX = "in-"


class JobKind(StrEnum):
    """What is to be done with an image."""

    DETECT = "detect"
    CONVERT = "convert"


class Lane(StrEnum):
    """A message's class of service."""

    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"


class RejectReason(StrEnum):
    """Why an upload was not accepted; each has a sentence for the supplier in `ImageRejected.explanation`."""

    BLOB_VANISHED = "blob_vanished"
    BLOB_CHANGED = "blob_changed"
    BLOB_TYPE = "blob_type"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_AN_IMAGE = "not_an_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    DAMAGED = "damaged"
    UNSUPPORTED_FORMAT = "unsupported_format"
    """A picture, but of a kind that is not accepted."""
    TOO_COMPLEX = "too_complex"
    """More parts, scans, memory or time than a picture of its format and size may need."""


class BlobReference(msgspec.Struct, frozen=True, kw_only=True):
    """Where bytes lie, never the bytes and never a URL: a receiver builds the address from its own settings."""

    container: str
    name: str
    etag: str
    """Without quotes; pins the content from validation to inference."""
    sha256: Sha256
    size: int
    """Bytes."""


class StoredBlob(msgspec.Struct, frozen=True, kw_only=True):
    """A result that a service wrote: container and name only, its content derives from the work."""

    container: str
    name: str


class BlobCreatedData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The payload of Event Grid's BlobCreated; field names are Microsoft's."""

    e_tag: str
    api: str = ""
    content_type: str = ""
    content_length: int = 0
    """Bytes, as the sender claims."""
    blob_type: str = "BlockBlob"
    url: str = ""
    """Carried because Event Grid sends it; never followed."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of everything that travels."""


class BlobCreated(Message, frozen=True, kw_only=True, tag="Microsoft.Storage.BlobCreated"):
    """A CloudEvents 1.0 event: a blob arrived. From Event Grid, or the same from the sweep."""

    id: str
    source: str
    subject: str
    """`/blobServices/default/containers/<container>/blobs/<name>`; the name may hold anything, slashes included."""
    time: datetime
    data: BlobCreatedData
    specversion: str = "1.0"

    @property
    def container(self) -> str:
        """The container's name; empty where the subject has another form."""
        return self._split()[0]

    @property
    def blob_name(self) -> str:
        """The blob's name exactly as stored; empty where the subject has another form."""
        return self._split()[1]

    def _split(self) -> tuple[str, str]:
        head, found, rest = self.subject.partition("/containers/")
        container, _, name = rest.partition("/blobs/")
        return (unquote(container), name) if found and head == "/blobServices/default" else ("", "")


class StorageEvents(Message, frozen=True, kw_only=True, tag="StorageEvents"):
    """Several events that arrived in one message; see fusebus.contracts.events."""

    created: tuple[BlobCreated, ...] = ()
    others: tuple[str, ...] = ()
    """Types of events that tell of no upload."""
    unreadable: tuple[str, ...] = ()
    """Why the rest can't be read."""
    schema_version: int = 1


class ImageAccepted(Message, frozen=True, kw_only=True, tag="ImageAccepted"):
    """Ingest passed an image: do `job_kind` with it before `deadline`."""

    upload_id: str
    run_id: str
    supplier: Supplier
    image_id: str
    job_kind: JobKind
    lane: Lane
    deadline: datetime
    blob: BlobReference
    width: int
    """Pixels, as stored (before EXIF orientation)."""
    height: int
    format: str
    """`jpeg`, `png` or `webp`, from the magic bytes."""
    accepted_at: datetime
    captured_at: str = ""
    """When the camera says it was taken: local time, ISO 8601, with an offset where the camera knows it."""
    camera: str = ""
    """The camera's model as it calls itself."""
    quality: tuple[str, ...] = ()
    """Warnings as short codes (`blurred`, `dark`, `glare`, `too_small`): the picture is analysed all the same."""
    model: str = ""
    """`name@version` that alone may analyse it (`fusebus reprocess`); empty: whichever serves."""
    schema_version: int = 1


class StageTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that each stage of one image took; in messages and the ledger only, never in result files."""

    download: float = 0.0
    decode: float = 0.0
    wait_for_model: float = 0.0
    model: float = 0.0
    annotate: float = 0.0
    upload: float = 0.0


class ImageAnalysed(Message, frozen=True, kw_only=True, tag="ImageAnalysed"):
    """The final of an upload whose image the model has seen."""

    upload_id: str
    run_id: str
    supplier: Supplier
    image_id: str
    analysis_id: str
    job_kind: JobKind
    model: str
    """`name@version` of the model that ran."""
    detections: int
    best_score: float
    """Highest score of the detections, 0 where there are none."""
    annotated: StoredBlob
    result: StoredBlob
    timings: StageTimings
    worker: str
    analysed_at: datetime
    schema_version: int = 1


class ImageFailed(Message, frozen=True, kw_only=True, tag="ImageFailed"):
    """The final of an upload that was accepted but could not be processed."""

    upload_id: str
    run_id: str
    supplier: Supplier
    reason: str
    """A short code, for example `gave_up` or `blob_changed`."""
    description: str
    failed_at: datetime
    schema_version: int = 1


class ImageRejected(Message, frozen=True, kw_only=True, tag="ImageRejected"):
    """The final of an upload that ingest (or, for a blob that changed meanwhile, the inferencer) refused."""

    upload_id: str
    run_id: str
    supplier: Supplier
    reason: RejectReason
    explanation: str
    """One sentence for the supplier: what is wrong and the way out."""
    rejected_at: datetime
    detail: str = ""
    """For ops: what exactly was found."""
    schema_version: int = 1


class DuplicateFound(Message, frozen=True, kw_only=True, tag="DuplicateFound"):
    """The final of an upload whose content was already delivered."""

    upload_id: str
    run_id: str
    supplier: Supplier
    image_id: str
    duplicate_of: str
    """The upload id that came first."""
    duplicate_of_run: str
    found_at: datetime
    schema_version: int = 1


class RunCheck(Message, frozen=True, kw_only=True, tag="RunCheck"):
    """Look at this run: close it if it has been quiet, complete it if every upload is final, else come back later."""

    run_id: str
    supplier: Supplier
    sequence: int = 0
    """Grows with each re-arming, so that duplicate detection lets the next check through."""
    manifest: bool = False
    """Only look whether all that the run's manifests list has arrived, until it is closed. These checks are numbered
    by time (MANIFEST_LOOK_SECONDS), so that however many manifests there are, looks remain few."""
    schema_version: int = 1


MANIFEST_LOOK_SECONDS = 10.0
"""At most one such look at a run is sent in so long."""


def manifest_check(run_id: str, supplier: str, at: datetime) -> RunCheck:
    """The look at a run's manifests that is due at `at`."""
    sequence = int(at.timestamp() // MANIFEST_LOOK_SECONDS)
    return RunCheck(run_id=run_id, supplier=supplier, sequence=sequence, manifest=True)


class CloseRun(Message, frozen=True, kw_only=True, tag="CloseRun"):
    """Close the run now: its supplier or an operator said that nothing more comes."""

    run_id: str
    supplier: Supplier
    requested_by: str
    schema_version: int = 1


class ReleaseRun(Message, frozen=True, kw_only=True, tag="ReleaseRun"):
    """Announce the run's photos that wait: those of the window that opens now, or, asked by people, all of them."""

    run_id: str
    supplier: Supplier
    opens_at: datetime
    """Of the window, for which this message was scheduled; of people's word, when they gave it."""
    requested_by: str = ""
    """Empty: nobody, the window opens."""
    lane: Lane | None = None
    """In place of the photos' own lane."""
    schema_version: int = 1


class CancelRun(Message, frozen=True, kw_only=True, tag="CancelRun"):
    """Process nothing more of the run: what has no final yet gets one that says so."""

    run_id: str
    supplier: Supplier
    requested_by: str
    asked_at: datetime
    reason: str = ""
    """One sentence; its supplier reads it."""
    schema_version: int = 1


class FleetChanged(Message, frozen=True, kw_only=True, tag="FleetChanged"):
    """The dispatcher decided differently than before."""

    pool: str
    nodes: int
    workers: int
    because: str
    decided_at: datetime
    schema_version: int = 1


class BudgetCrossed(Message, frozen=True, kw_only=True, tag="BudgetCrossed"):
    """The month's metered cost crossed a share of its budget, or its forecast is above the budget."""

    month: str
    """YYYY-MM."""
    share: float
    """0.5, 0.8, 0.9 or 1.0; of a forecast, what it is of the budget."""
    spent: float
    budget: float
    currency: str
    crossed_at: datetime
    mark: str = ""
    """Names the alert within its month, the same in every repeat; empty before marks came: `share` names it."""
    forecast: float | None = None
    """Of the whole month; None where there is none yet."""
    foretold: bool = False
    """The alert is about the forecast, not about what is spent."""
    consequence: str = ""
    """What the spent budget does to the deadlines, in words; empty while it stops nothing."""
    schema_version: int = 1


class WorkLate(Message, frozen=True, kw_only=True, tag="WorkLate"):
    """What all that may be bought can't do in time; told once for each time that the work of a job kind turns late."""

    job_kind: JobKind
    since: datetime
    """When it was first seen; names the alert, the same in every repeat."""
    images: int
    """That will be late."""
    because: str
    late_seconds: float | None = None
    """By which the last of them will be late; None: for good, for nothing may be bought."""
    schema_version: int = 1


class ModelChanged(Message, frozen=True, kw_only=True, tag="ModelChanged"):
    """Another model version serves from now on."""

    previous: str
    current: str
    changed_by: str
    changed_at: datetime
    schema_version: int = 1


class ModelRefused(Message, frozen=True, kw_only=True, tag="ModelRefused"):
    """A worker does not take a model version that it was told to serve; sent once for each version and worker."""

    model: str
    """`name@version`."""
    serving: str
    """What serves in its place; empty where the worker has nothing else and ends."""
    reason: str
    """A short code, for example `files`, `graph`, `time_out` or `memory`."""
    description: str
    worker: str
    refused_at: datetime
    schema_version: int = 1


class UploadsHeld(Message, frozen=True, kw_only=True, tag="UploadsHeld"):
    """A supplier's uploads are held from now on; sent with each, one a day and reason counts."""

    supplier: Supplier
    because: str
    """`quota`, `suspended` or `removed`."""
    day: str
    """YYYY-MM-DD, UTC."""
    held_at: datetime
    until: datetime | None = None
    """When they are offered again by themselves; None: when people change the supplier's record."""
    email: str = ""
    """Where the supplier is told; empty: nobody there is."""
    images_per_day: int | None = None
    bytes_per_day: int | None = None
    schema_version: int = 1


AnyMessage = (
    BlobCreated
    | ImageAccepted
    | ImageAnalysed
    | ImageFailed
    | ImageRejected
    | DuplicateFound
    | RunCheck
    | CloseRun
    | FleetChanged
    | BudgetCrossed
    | ModelChanged
    | ModelRefused
    | UploadsHeld
    | WorkLate
    | StorageEvents
    | ReleaseRun
    | CancelRun
)
MESSAGE_TYPES: tuple[type[Message], ...] = AnyMessage.__args__
SCHEMA_VERSION = 1
"""The highest schema version this release understands."""


def work_id(message: Message) -> str:
    """What the message is about, as the stable head of its `message_id`: a repeat of the same send has the same id."""
    kind = type(message).__name__
    match message:
        case BlobCreated():
            return f"{kind}/{upload_id(message.container, message.blob_name, message.data.e_tag)}"
        case StorageEvents():
            return f"{kind}/{digest(*(work_id(event) for event in message.created), *message.others)}"
        case RunCheck():
            return f"{kind}/{message.run_id}/{'manifest/' * message.manifest}{message.sequence}"
        case CloseRun():
            return f"{kind}/{message.run_id}"
        case ReleaseRun():
            return f"{kind}/{message.run_id}/{message.opens_at.isoformat()}/{message.requested_by}"
        case CancelRun():
            return f"{kind}/{message.run_id}/{message.asked_at.isoformat()}"
        case FleetChanged():
            return f"{kind}/{message.pool}/{message.decided_at.isoformat()}"
        case BudgetCrossed():
            return f"{kind}/{message.month}/{message.mark or message.share}"
        case WorkLate():
            return f"{kind}/{message.job_kind.value}/{message.since.isoformat()}"
        case ModelChanged():
            return f"{kind}/{message.current}/{message.changed_at.isoformat()}"
        case ModelRefused():
            return f"{kind}/{message.model}/{message.worker}"
        case UploadsHeld():
            return f"{kind}/{message.supplier}/{message.day}/{message.because}"
        case DuplicateFound():  # of another one is another finding: the first may have come to nothing meanwhile
            return f"{kind}/{message.upload_id}/{message.duplicate_of}"
        case ImageAccepted() | ImageAnalysed() | ImageFailed() | ImageRejected():
            return f"{kind}/{message.upload_id}"
        case _:
            raise TypeError(f"{kind} is not a message of this release")

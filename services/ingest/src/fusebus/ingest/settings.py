"""Ingest's settings, read once at start."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings, ConsumerSettings
from fusebus.contracts.messages import JobKind, Lane
from fusebus.ledger import LedgerSettings


class IngestSettings(Struct, frozen=True, kw_only=True):
    """Section `ingest`."""

    bus: BusSettings
    consumer: ConsumerSettings
    blobs: BlobSettings
    ledger: LedgerSettings

    job_kind: Annotated[JobKind, Meta(description="What is to be done with each accepted image.")] = JobKind.DETECT
    lane: Annotated[Lane, Meta(description="Class of service of each accepted image.")] = Lane.NORMAL
    deadline_seconds: Annotated[
        float, Meta(gt=0, description="From entering the ledger to the time an image shall be done; sizes the fleet.")
    ] = 6 * 3600.0
    run_quiet_seconds: Annotated[
        float, Meta(gt=0, description="When the first look at a new run is due; the notifier's run_quiet decides then.")
    ] = 600.0
    max_blob_bytes: Annotated[
        int, Meta(ge=1, le=1 << 30, description="Larger uploads are rejected unread; each slot may hold so much.")
    ] = 64_000_000
    decode_threads: Annotated[
        int, Meta(ge=1, le=64, description="Images decoded at a time; each may take 600 MB for 100 megapixels.")
    ] = 2
    storage_retry_seconds: Annotated[
        float, Meta(gt=0, description="Delay of the first retry while storage does not answer; doubles up to 300.")
    ] = 10.0

    sweep_interval_seconds: Annotated[
        float,
        Meta(ge=0, description="Pause between two searches for uploads that no event announced; 0: never search."),
    ] = 60.0
    sweep_grace_seconds: Annotated[
        float, Meta(ge=0, description="Age an upload must have before the sweep announces it; with Event Grid: 300.")
    ] = 0.0
    sweep_repeat_seconds: Annotated[
        float, Meta(gt=0, description="After so long an announced upload that is in no run is announced again.")
    ] = 900.0
    sweep_repeats: Annotated[
        int, Meta(ge=0, description="How often that happens before an upload is left to people, with an error logged.")
    ] = 8

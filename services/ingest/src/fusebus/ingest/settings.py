"""Ingest's settings, read once at start."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings, ConsumerSettings, SessionSettings
from fusebus.contracts import timing
from fusebus.contracts.messages import JobKind, Lane
from fusebus.host import SettingsError
from fusebus.ledger import LedgerSettings
from fusebus.validation.limits import MAX_BYTES, MOST_BYTES


class IngestSettings(Struct, frozen=True, kw_only=True):
    """Section `ingest`."""

    bus: BusSettings
    consumer: ConsumerSettings
    blobs: BlobSettings
    ledger: LedgerSettings
    sessions: SessionSettings = SessionSettings()

    job_kind: Annotated[JobKind, Meta(description="What is to be done with each accepted image.")] = JobKind.DETECT
    lane: Annotated[Lane, Meta(description="Class of service of each accepted image.")] = Lane.NORMAL
    deadline_seconds: Annotated[
        float, Meta(gt=0, description="From entering the ledger to the time an image shall be done; sizes the fleet.")
    ] = 6 * 3600.0
    when: Annotated[
        str,
        Meta(
            description="When accepted images are announced: at-once, windows 02:00,14:00 Europe/London, "
            "off-peak 22:00-06:00 Europe/London, on-command."
        ),
    ] = "at-once"
    when_detect: Annotated[str, Meta(description="The same for job kind detect; empty: as `when`.")] = ""
    when_convert: Annotated[str, Meta(description="The same for job kind convert; empty: as `when`.")] = ""
    time_zone: Annotated[
        str, Meta(description="Whose clock such times mean that name no zone of their own; summer time included.")
    ] = "Europe/London"
    coming_seconds: Annotated[
        float, Meta(gt=0, description="How often at most the dispatcher is told anew what a window will release.")
    ] = 5.0
    coming_recount_seconds: Annotated[
        float,
        Meta(
            gt=0, description="How often runs with a window ahead are counted anew, for what people cancel meanwhile."
        ),
    ] = 60.0
    run_quiet_seconds: Annotated[
        float, Meta(gt=0, description="When the first look at a new run is due; the notifier's run_quiet decides then.")
    ] = 600.0
    max_blob_bytes: Annotated[
        int,
        Meta(ge=1, le=MOST_BYTES, description="Larger uploads are rejected unread; each slot may hold so much, twice."),
    ] = MAX_BYTES
    validators: Annotated[
        int, Meta(ge=1, le=64, description="Files judged at a time, each in a guarded child: a core and 512 MB each.")
    ] = 2
    heif: Annotated[
        bool, Meta(description="Accept HEIC and HEIF too; needs the extra `heif`. Workers get a rebuilt JPEG.")
    ] = False
    storage_retry_seconds: Annotated[
        float, Meta(gt=0, description="Delay of the first retry while storage does not answer; doubles up to 300.")
    ] = 10.0

    supplier_refresh_seconds: Annotated[
        float, Meta(ge=0, description="How old a supplier's record may be: a suspension takes effect within it.")
    ] = 10.0

    sweep_interval_seconds: Annotated[
        float,
        Meta(ge=0, description="Pause between two searches for uploads that no event announced; 0: no such searches."),
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

    pile_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="When a flood's event without a lane waited so long, others' photos are searched; 0: never.",
        ),
    ] = 0.25
    pile_search_seconds: Annotated[
        float,
        Meta(gt=0, description="Pause between two such searches; half of what the last one took, if longer."),
    ] = 0.05
    pile_search_most_seconds: Annotated[
        float, Meta(gt=0, description="A search that takes longer is broken off, the next one goes on.")
    ] = 5.0
    pile_yield_seconds: Annotated[
        float, Meta(ge=0, description="So long at most such an event lets others' photos pass before it.")
    ] = 1.0

    def when_of(self, kind: JobKind) -> str:
        """The timing of a job kind as text; of a kind without one, that of all."""
        return {JobKind.DETECT: self.when_detect, JobKind.CONVERT: self.when_convert}[kind] or self.when

    def check_timings(self) -> None:
        """Raises SettingsError for a timing that can't be read."""
        for kind in JobKind:
            try:
                timing.parse(self.when_of(kind), timing.checked_zone(self.time_zone))
            except ValueError as error:
                raise SettingsError([f"FUSEBUS_INGEST_WHEN, _WHEN_{kind.name} or _TIME_ZONE: {error}"]) from error

"""Everything that can be set about a conversion worker: one frozen struct, section `convert`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings, ConsumerSettings
from fusebus.convert.conversion import Format
from fusebus.convert.memory import LEAST_MEGABYTES, MEMORY_PER_WORKER_BYTES
from fusebus.host import SettingsError


class ConvertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Variables FUSEBUS_CONVERT_<FIELD>, and the shared sections bus, consumer and blobs."""

    bus: BusSettings
    consumer: ConsumerSettings
    """Its `slots` and `idle_exit_seconds` give way to ours."""
    blobs: BlobSettings
    format: Annotated[Format, Meta(description="What pictures become; both are lossless.")] = Format.PNG
    small: Annotated[bool, Meta(description="Fewer bytes, at about a quarter of the speed.")] = False
    threads: Annotated[int, Meta(ge=0, le=256, description="Pictures converted at a time; 0: one for each core.")] = 0
    slots: Annotated[
        int, Meta(ge=1, le=256, description="Pictures in hand at a time, those on their way from and to storage too.")
    ] = 8
    memory_megabytes: Annotated[
        int,
        Meta(
            ge=0,
            description="MB for pictures being converted, all together; one that needs more is converted alone. "
            f"At least {LEAST_MEGABYTES}; 0: {MEMORY_PER_WORKER_BYTES >> 20} for each thread.",
        ),
    ] = 0
    idle_exit_seconds: Annotated[
        float, Meta(ge=0, description="Seconds without work after which the process ends with exit code 0; 0: never.")
    ] = 0.0
    retry_seconds: Annotated[
        float, Meta(gt=0, description="First delay while storage does not answer; doubles up to 300.")
    ] = 10.0

    def __post_init__(self) -> None:
        if 0 < self.memory_megabytes < LEAST_MEGABYTES:
            too_few = f"{self.memory_megabytes} MB are too few: 0, or at least {LEAST_MEGABYTES}"
            raise SettingsError([f"FUSEBUS_CONVERT_MEMORY_MEGABYTES: {too_few}"])

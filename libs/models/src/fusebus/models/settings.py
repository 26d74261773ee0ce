"""Where models come from and what a load may cost: section `models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings

GIB = 1024**3


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `models`: variables FUSEBUS_MODELS_<FIELD>."""

    container: Annotated[str, Meta(description="Blob container of the registry.")] = "model-checkpoints"
    watch_seconds: Annotated[
        float, Meta(gt=0, description="How often a worker looks for a promotion; one small request each time.")
    ] = 10.0
    load_timeout_seconds: Annotated[
        float, Meta(gt=0, description="A model that is not verified, loaded and warm after this is refused.")
    ] = 300.0
    load_memory_bytes: Annotated[
        int, Meta(gt=0, description="A model that takes more memory while it is loaded is refused.")
    ] = 8 * GIB
    cache: Annotated[
        Path, Meta(description="Folder that downloaded models are kept in; nobody else can read or write it.")
    ] = Path(".fusebus/models")


class CommandSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `fusebus model` needs: the sections of the services, nothing of its own."""

    bus: BusSettings
    blobs: BlobSettings
    models: RegistrySettings

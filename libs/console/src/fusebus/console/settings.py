"""Where the console finds the system it talks to: the same settings as the services, nothing of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings
from fusebus.host import environment_for_people, load_settings
from fusebus.ledger import LedgerSettings


class ConsoleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses and credentials, the embedded stack's or Azure's."""

    bus: BusSettings
    blobs: BlobSettings
    ledger: LedgerSettings
    pool: Annotated[str, msgspec.Meta(description="Batch pool whose decisions are shown.")] = "local-gpu"


def console_settings(file: Path | None = None) -> ConsoleSettings:
    """From the environment and `file`, FUSEBUS_SETTINGS or the embedded stack's file. Raises SettingsError."""
    return load_settings(ConsoleSettings, "console", environment_for_people(file))

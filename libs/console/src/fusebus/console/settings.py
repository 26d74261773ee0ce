"""Where the console finds the system it talks to: the same settings as the services, nothing of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings
from fusebus.host import load_settings
from fusebus.host.settings import FILE_VARIABLE
from fusebus.ledger import LedgerSettings

STACK_FILE = Path(".fusebus/settings.toml")
"""What a running embedded stack leaves in the folder it was started from."""


class ConsoleSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses and credentials, the embedded stack's or Azure's."""

    bus: BusSettings
    blobs: BlobSettings
    ledger: LedgerSettings
    pool: Annotated[str, msgspec.Meta(description="Batch pool whose decisions are shown.")] = "local-gpu"


def console_settings(file: Path | None = None) -> ConsoleSettings:
    """From the environment and `file`, FUSEBUS_SETTINGS or the embedded stack's file. Raises SettingsError."""
    environment = dict(os.environ)
    if file is not None:
        environment[FILE_VARIABLE] = str(file)
    elif FILE_VARIABLE not in environment and STACK_FILE.exists():
        environment[FILE_VARIABLE] = str(STACK_FILE)
    return load_settings(ConsoleSettings, "console", environment)

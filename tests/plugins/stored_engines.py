"""Engines on data directories, and what a new process would find there."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raw_amqp import message as encoded_message

from fusebus.servicebus.engine import (
    Delivery,
    Engine,
    Message,
)
from fusebus.servicebus.store import Store, database
from fusebus.servicebus.wire_messages import engine_message


class Clock:
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


class Running:
    """An engine with its store; `crash` gives what a new process would find."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory, self.clock = directory, clock
        self.engine = Engine(clock, new_token=uuid.uuid4)
        self.store = Store(directory, reserve_bytes=0)
        self.complaints = self.store.restore(self.engine)

    def crash(self, spoil: Callable[[Path], None] | None = None) -> Running:
        """Continue on a copy of the files as they are at this moment; this one lives on."""
        aside = self.directory.with_name(uuid.uuid4().hex)
        shutil.copytree(self.directory, aside)
        if spoil is not None:
            spoil(aside)
        return Running(aside, self.clock)


def message(text: str, **fields: Any) -> Message:
    made = engine_message(encoded_message(text.encode(), message_id=fields.pop("message_id", text)))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def texts(engine: Engine, path: str) -> list[str | None]:
    return [delivery.message.message_id for delivery in engine.peek(path, 0, 100_000)]


def token(delivery: Delivery) -> uuid.UUID:
    assert delivery.lock_token is not None
    return delivery.lock_token


def spoil_a_table(directory: Path) -> None:
    """The table of duplicates' root page: nothing in it is needed here, and SQLite notices."""
    with sqlite3.connect(directory / database.FILE_NAME) as found:
        page_bytes = found.execute("PRAGMA page_size").fetchone()[0]
        (root,) = found.execute("SELECT rootpage FROM sqlite_master WHERE name = 'duplicates'").fetchone()
    found.close()
    with (directory / database.FILE_NAME).open("r+b") as file:
        file.seek((root - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)

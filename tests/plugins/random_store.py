"""A durable store on a disk that fails now and then, and that may be copied in the middle of a commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import pytest

from fusebus.servicebus.store import journal_file, log, store

LOG_SIZES: Final[dict[str, tuple[float, ...]]] = {
    "REWIND_BYTES": (100, 1000, 4000, 20_000),
    "MAX_JOURNAL_BYTES": (-1, 2000, 2000, 20_000, 10_000_000),
    "MOVABLE_SHARE": (1 / 16, 1 / 16, 1 / 4),
    "EMPTYING_SHARE": (1 / 64, 1 / 64, 0),
    "ROW_BYTES": (200, 2000, 10_000),
    "MIN_BYTES_TO_TIDY": (500, 500, 20_000),
    "TIDY_BYTES": (300, 5000, 50_000),
    "FORGET_BLOCKS": (1, 2, 3, 8, 64),
    "MIN_BLOCKS_TO_DROP": (1, 8, 64),
}
"""Of a log so small that some hundred messages show all that it does."""
JOURNAL_SIZES: Final = {
    "MAPPED_BYTES": (0, 4096, 16_384, 65_536),
    "READY_BYTES": (4096, 8192, 65_536),
    "COPIED_BYTES": (100, 2000, 16_384),
}
TRANSACTION: Final = ("BEGIN IMMEDIATE", "COMMIT")


@dataclass
class Trouble:
    """How likely it is that something goes wrong; `look` is called at moments that a crash might choose."""

    random: Random
    failing: float = 0.0
    """BEGIN and COMMIT."""
    failing_append: float = 0.0
    lying: float = 0.0
    """COMMITs that are reported as failed and are written all the same."""
    failing_question: float = 0.0
    """Whether such a COMMIT was written."""
    looking: float = 0.01
    look: Callable[[], None] | None = None
    """Nothing goes wrong while there is none."""

    @contextmanager
    def none(self) -> Iterator[None]:
        """For a new process that is to find what there is."""
        look, self.look = self.look, None
        yield
        self.look = look

    def strikes(self, likely: float) -> bool:
        return likely > 0 and self.look is not None and self.random.random() < likely

    def perhaps_look(self, likely: float | None = None) -> None:
        if self.strikes(self.looking if likely is None else likely):
            assert self.look is not None
            self.look()


class ShakyConnection:
    """The log's database."""

    def __init__(self, real: sqlite3.Connection, trouble: Trouble) -> None:
        self._real, self._trouble = real, trouble

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        trouble = self._trouble
        trouble.perhaps_look()
        if sql == "COMMIT" and trouble.strikes(trouble.lying):
            self._real.execute(sql)
            raise sqlite3.OperationalError("written, but reported as failed")
        likely = trouble.failing if sql in TRANSACTION else 0.0
        if sql.startswith("SELECT last FROM numbers"):
            likely = trouble.failing_question
        if trouble.strikes(likely):
            raise sqlite3.OperationalError("failed")
        found = self._real.execute(sql, *parameters)
        trouble.perhaps_look()
        return found


class ShakyJournal(journal_file.JournalFile):
    """The log's journal file."""

    trouble: Trouble

    def append(self, number: int, data: bytes) -> int:
        if self.trouble.strikes(self.trouble.failing_append):
            raise OSError("failed")
        position = super().append(number, data)
        self.trouble.perhaps_look(self.trouble.looking / 10)  # there are so many
        return position

    def rewind(self, following: journal_file.Pass) -> None:
        self.trouble.perhaps_look()
        super().rewind(following)
        self.trouble.perhaps_look()


def make_small(patch: pytest.MonkeyPatch, random: Random) -> None:
    """Draw sizes for the log and its journal file."""
    for module, sizes in ((log, LOG_SIZES), (journal_file, JOURNAL_SIZES)):
        for name, choices in sizes.items():
            patch.setattr(module, name, random.choice(choices))


def make_shaky(patch: pytest.MonkeyPatch, trouble: Trouble) -> None:
    """Stores that are opened from now on use a disk with this trouble."""
    opened = store.opened
    patch.setattr(store, "opened", lambda *which: ShakyConnection(opened(*which), trouble))
    patch.setattr(store, "JournalFile", type("Journal", (ShakyJournal,), {"trouble": trouble}))
    patch.setattr(store, "RETRY_SECONDS", 1e9)  # no waiting: what a seed does must not depend on the machine

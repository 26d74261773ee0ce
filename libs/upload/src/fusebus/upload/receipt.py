"""The local receipt: a line of JSON for each thing that happened, by which a repeated call knows what it sent.

Create-only links allow no listing, so this file is the sender's only memory.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

NAME = ".fusebus-receipt.jsonl"
"""In the folder that is sent; hidden files are not sent."""
SENDING = "sending"
UNANSWERED = "sent, not answered"
SENT = "sent"
NOT_SENT = "not sent"


class ReceiptBroken(Exception):
    """The receipt can't be written or read; the text says what to do."""


@dataclass(frozen=True)
class Entry:
    """One file at one moment: before a request (`sending`), when its last byte is gone, and after its answer."""

    container: str
    """Without the secret."""
    name: str
    state: str
    sha256: str
    size: int
    """Bytes."""
    at: str
    """UTC, ISO 8601."""
    etag: str = ""
    stored_as: str = ""
    """The blob's name where it is not `name`."""


class Receipt:
    """An append-only file, as a context manager; safe to use by many threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sent: dict[tuple[str, str], Entry] = {}
        self._doubts: dict[tuple[str, str, str], str] = {}
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
                self._learn(line)
            self._file = self.path.open("ab", buffering=0)
            if self._file.tell() and not self.path.read_bytes().endswith(b"\n"):
                self._file.write(b"\n")  # the last call was cut off in the middle of a line
        except OSError as error:
            raise ReceiptBroken(f"the receipt {self.path} can't be used ({error.strerror}): --receipt FILE") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def sent(self, container: str, name: str) -> Entry | None:
        """What was sent under this name; None where nothing was."""
        return self._sent.get((container, name))

    def doubt(self, container: str, name: str, sha256: str) -> str:
        """What is not known of earlier tries with this content; empty: none of them can have created the file.

        UNANSWERED: one went out whole and nobody said what became of it. SENDING: one was cut off by the end of its
        process, or somewhere on the way.
        """
        return self._doubts.get((container, name, sha256), "")

    def note(self, entry: Entry) -> None:
        """Append, and for what was sent make sure that it outlives a crash. Raises ReceiptBroken."""
        line = json.dumps(asdict(entry)).encode("ascii") + b"\n"  # any name, broken ones too, as escapes
        with self._lock:
            assert self._file is not None, "the receipt is used outside of its `with`"
            try:
                self._file.write(line)
                if entry.state == SENDING:
                    os.fsync(self._file.fileno())  # sent is repeated at worst, an unknown try would be a riddle
            except OSError as error:
                raise ReceiptBroken(f"the receipt {self.path} can't be written: {error.strerror}") from error
            self._keep(entry)

    def _learn(self, line: bytes) -> None:
        """A line that is none of ours, or cut off, is passed over: its file is sent again, which harms nothing."""
        try:
            self._keep(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            return

    def _keep(self, entry: Entry) -> None:
        content = (entry.container, entry.name, entry.sha256)
        if entry.state == SENDING:
            self._doubts.setdefault(content, SENDING)
        elif entry.state == UNANSWERED:
            self._doubts[content] = UNANSWERED
        else:
            self._doubts.pop(content, None)
        if entry.state == SENT:
            self._sent[entry.container, entry.name] = entry

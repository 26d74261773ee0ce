"""What was done, one JSON line for each picture: what makes a conversion resumable."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

RECORD_SUFFIX = ".convert.jsonl"
"""The record lies beside the destination: `out` has `out.convert.jsonl`; a whole container, `.convert.jsonl` in it."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One picture: what it was, and what it became or why it did not."""

    source: str
    """Its name below the source."""
    origin: str = ""
    """See Source.origin: two sources may have a picture of the same name."""
    source_sha256: str = ""
    source_etag: str = ""
    """In storage, which pins the content without a download."""
    target: str = ""
    """See Target.name; another one, or another version, is converted again."""
    destination: str = ""
    destination_sha256: str = ""
    destination_etag: str = ""
    destination_bytes: int = 0
    earlier: dict[str, tuple[str, str]] = {}
    """Its results under other names, as of another format: digest and ETag of each. They are this command's too."""
    frames: int = 1
    failed: str = ""
    """A Reason; empty: it was converted."""
    text: str = ""

    def at(self, name: str) -> Entry | None:
        """The same with what it wrote last under this name; None: nothing."""
        if self.destination == name:
            return self
        if name not in self.earlier:
            return None
        sha256, etag = self.earlier[name]
        return msgspec.structs.replace(self, destination=name, destination_sha256=sha256, destination_etag=etag)

    def beside(self, name: str) -> dict[str, tuple[str, str]]:
        """What is `earlier` once this name is the last one that it wrote."""
        last = {self.destination: (self.destination_sha256, self.destination_etag)} if self.destination else {}
        return {other: written for other, written in (self.earlier | last).items() if other != name}


Known = dict[tuple[str, str], Entry]
"""By origin and name."""


class RecordBusy(Exception):
    """Another process converts to the same destination."""


class Record(Protocol):
    """Where entries are kept; used by one thread."""

    @property
    def place(self) -> str:
        """Where it lies, for people."""
        ...

    def load(self) -> Known:
        """The last entry of each picture. Raises RecordBusy, OSError or StorageError."""
        ...

    def append(self, entry: Entry) -> None:
        """Keep one more; it may be lost to a crash, then its picture is converted once more. Raises as `load`."""
        ...

    def close(self) -> None:
        """Keep all for good. Raises as `load`."""
        ...


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def line_of(entry: Entry) -> bytes:
    """The entry as it is kept."""
    return _encoder.encode(entry) + b"\n"


def entries_of(lines: Iterable[bytes]) -> Known:
    """The last entry of each picture; a line that a crash cut short, or a stranger wrote, counts for nothing."""
    found: Known = {}
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            entry = _decoder.decode(line)
            found[entry.origin, entry.source] = entry
    return found


class FileRecord:
    """The record of a folder: a file that grows, locked while it is open."""

    def __init__(self, folder: Path) -> None:
        real = Path(os.path.realpath(folder))  # however it is spelled, and through which link: one record and one lock
        self.path = real.parent / (real.name + RECORD_SUFFIX)
        self._file: BinaryIO | None = None

    @property
    def place(self) -> str:
        """See Record.place."""
        return str(self.path)

    def load(self) -> Known:
        """See Record.load."""
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecordBusy(f"another process converts to the same folder: it holds {self.path}") from error
        self._file.seek(0)
        data = self._file.read()
        if data and not data.endswith(b"\n"):
            self._file.write(b"\n")
        return entries_of(data.splitlines())

    def append(self, entry: Entry) -> None:
        """See Record.append."""
        assert self._file is not None, "loaded first"
        self._file.write(line_of(entry))
        self._file.flush()

    def close(self) -> None:
        """See Record.close."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

"""Where pictures come from and go to, as the bulk conversion sees it: folders here, containers beside."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from fusebus.convert.errors import Reason, Unconvertible
from fusebus.convert.names import printable
from fusebus.convert.record import Entry, FileRecord, Record

MOST_BYTES = 512 << 20
"""More is not read of one file."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the source."""

    name: str
    """Its path below the source, with forward slashes."""
    size: int
    """Bytes."""
    etag: str = ""
    """In storage; empty for a file, whose content only its digest tells."""


class Source(Protocol):
    """Where pictures come from; used by several threads."""

    @property
    def origin(self) -> str:
        """Which source it is, the same each time."""
        ...

    def list(self) -> list[Found]:
        """All files, sorted by name. Raises OSError or StorageError."""
        ...

    def read(self, found: Found) -> bytes:
        """The content. Raises Unconvertible, OSError or StorageError."""
        ...


class Destination(Protocol):
    """Where they go to; used by several threads."""

    def record(self) -> Record:
        """The record beside it."""
        ...

    def holds(self, entry: Entry) -> bool:
        """Whether what the entry says is there, unchanged. Raises OSError or StorageError."""
        ...

    def write(self, name: str, data: bytes, known: Entry | None, *, replace: bool) -> str:
        """Put a file there, whole or not at all; its ETag where there are such.

        What is there already gives way if it has the same bytes, is what `known` says, or with `replace`. Raises
        Unconvertible, OSError or StorageError.
        """
        ...


class Folder:
    """A folder with those below it, as source or destination."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._safe: set[Path] = set()
        """Folders that were seen to lie in this one: each is resolved once."""

    @property
    def origin(self) -> str:
        """See Source.origin."""
        return printable(str(self.path.resolve()))

    def list(self) -> list[Found]:
        """See Source.list."""
        return sorted(self._walk(self.path, ""), key=lambda found: found.name)

    def read(self, found: Found) -> bytes:
        """See Source.read."""
        if found.size > MOST_BYTES:
            raise Unconvertible(Reason.TOO_LARGE, f"{found.size} bytes; {MOST_BYTES} are read at most")
        return (self.path / found.name).read_bytes()

    def record(self) -> Record:
        """See Destination.record."""
        self.path.mkdir(parents=True, exist_ok=True)
        return FileRecord(self.path)

    def holds(self, entry: Entry) -> bool:
        """See Destination.holds."""
        path = self.path / entry.destination
        try:
            return path.stat().st_size == entry.destination_bytes and _sha256(path) == entry.destination_sha256
        except FileNotFoundError:
            return False

    def write(self, name: str, data: bytes, known: Entry | None, *, replace: bool) -> str:
        """See Destination.write."""
        path = self.path / name
        self._make_folder(path.parent)
        if os.path.lexists(path) and not replace and not self._is_ours(path, data, known):
            raise Unconvertible(Reason.EXISTS, f"{path} is there with other content; --replace overwrites it")
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return ""

    def _make_folder(self, folder: Path) -> None:
        """A link in here could lead anywhere, to the originals too: nothing is made or written behind it."""
        if folder in self._safe:
            return
        if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(self.path)):
            raise Unconvertible(Reason.UNWRITABLE, f"{folder} is a link, or behind one, that leads out of {self.path}")
        folder.mkdir(parents=True, exist_ok=True)
        self._safe.add(folder)

    def _is_ours(self, path: Path, data: bytes, known: Entry | None) -> bool:
        if not path.is_file():
            return False
        if not path.is_file():
            return False
        found = _sha256(path)
        return (known is not None and found == known.destination_sha256) or found == hashlib.sha256(data).hexdigest()

    def _walk(self, folder: Path, prefix: str) -> Iterator[Found]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(folder / entry.name, f"{prefix}{entry.name}/")
                elif entry.is_file():
                    yield Found(name=prefix + entry.name, size=entry.stat().st_size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

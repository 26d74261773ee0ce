"""Where pictures come from and go to, as the bulk conversion sees it: folders here, containers beside."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from fusebus.convert.errors import Reason, Unconvertible
from fusebus.convert.names import printable
from fusebus.convert.record import Entry, FileRecord, Record

MOST_BYTES = 512 << 20
"""More is not read of one file."""
_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class LeftAlone(StrEnum):
    """Why something of the source is left alone: what it is."""

    OTHER_SUFFIX = "other_suffix"
    HIDDEN = "hidden"
    """A hidden folder counts as one."""
    LINKED_FOLDER = "linked_folder"
    """Followed, links could lead in circles, or to the same pictures twice."""
    DANGLING_LINK = "dangling_link"
    SPECIAL_FILE = "special_file"
    """A FIFO, socket or device."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the source, or what else lies there."""

    name: str
    """Its path below the source, with forward slashes; a folder's ends with one."""
    size: int
    """Bytes."""
    etag: str = ""
    """In storage; empty for a file, whose content only its digest tells."""
    left_alone: LeftAlone | None = None
    """Where it is no file to read."""
    failed: str = ""
    """Why this folder can't be listed."""


class Source(Protocol):
    """Where pictures come from; used by several threads."""

    @property
    def origin(self) -> str:
        """Which source it is, the same each time."""
        ...

    def list(self) -> list[Found]:
        """All that lies there, sorted by name. Raises OSError or StorageError where none of it can be listed."""
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
        found, waiting = [], [""]
        while waiting:
            prefix = waiting.pop()
            try:
                entries = _entries(self.path / prefix)
            except OSError as error:
                if not prefix:
                    raise
                found.append(Found(name=prefix, size=0, failed=printable(error.strerror or str(error))))
                continue
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{prefix}{entry.name}/")
                else:
                    found.append(_found(entry, prefix + entry.name))
        return sorted(found, key=lambda one: one.name)

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
        found = _sha256(path)
        return (known is not None and found == known.destination_sha256) or found == hashlib.sha256(data).hexdigest()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _found(entry: os.DirEntry[str], name: str) -> Found:
    """What lies there; where even that can't be told, it counts as a file, which then can't be read."""
    if entry.name.startswith("."):
        return Found(name=name, size=0, left_alone=LeftAlone.HIDDEN)
    try:
        there = entry.stat()
    except OSError as error:
        dangling = entry.is_symlink() and error.errno in _LEADS_NOWHERE
        return Found(name=name, size=0, left_alone=LeftAlone.DANGLING_LINK if dangling else None)
    if stat.S_ISDIR(there.st_mode):
        return Found(name=name, size=0, left_alone=LeftAlone.LINKED_FOLDER)
    if not stat.S_ISREG(there.st_mode):
        return Found(name=name, size=0, left_alone=LeftAlone.SPECIAL_FILE)
    return Found(name=name, size=there.st_size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Two small files beside the database: what was last committed, and room on the disk kept for bad times."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from pathlib import Path
from typing import Final

COMMIT_FILE: Final = "last-commit"
RESERVE_FILE: Final = "reserve"
_NUMBER = struct.Struct("<Q")
_put_number = _NUMBER.pack_into


def allocate(file: int, size_bytes: int) -> None:
    """Makes a file at least so long, with room on the disk for all of it; raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size_bytes)
    else:  # macOS
        length = os.fstat(file).st_size
        os.pwrite(file, bytes(max(0, size_bytes - length)), length)


def sync_names(directory: Path) -> None:
    """Waits until the disk knows the names of the files in a directory; their content is another matter."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class CommitMark:
    """The number of the last committed block, outside the database, so that a cut log is noticed."""

    def __init__(self, directory: Path) -> None:
        path = directory / COMMIT_FILE
        if not path.exists() or path.stat().st_size < mmap.PAGESIZE:
            path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    @property
    def block(self) -> int:
        """0 before the first commit."""
        return int(_NUMBER.unpack_from(self._memory)[0])

    def set(self, block: int) -> None:
        """Survives the end of this process at once."""
        _put_number(self._memory, 0, block)

    def close(self) -> None:
        """Releases the file."""
        self._memory.close()


class Reserve:
    """A file that is given up when the disk is full, so that what was already taken in can still be written."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self._path = directory / RESERVE_FILE
        self._size_bytes = size_bytes

    def take(self) -> bool:
        """Make sure that the room is there; False if the disk has too little."""
        try:
            with self._path.open("ab") as file:
                if self._size_bytes:
                    allocate(file.fileno(), self._size_bytes)
        except OSError:
            self.give_up()
            return False
        return True

    def give_up(self) -> None:
        """Free the room."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

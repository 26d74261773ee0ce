"""Small files beside the database: whose it is, what was last committed, and room on the disk kept for bad times."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

COMMIT_FILE: Final = "last-commit"
RESERVE_FILE: Final = "reserve"
LOCK_FILE: Final = "lock"
_NUMBER = struct.Struct("<qq")  # and once more with all bits turned, so that damage is noticed
_put_number = _NUMBER.pack_into


class DataDirectoryInUse(OSError):
    """Another broker has the data directory open."""


class Lock:
    """A data directory is one broker's, from before anything in it is looked at until `close`."""

    def __init__(self, directory: Path) -> None:
        """Raises DataDirectoryInUse, OSError."""
        self._file = (directory / LOCK_FILE).open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise DataDirectoryInUse(f"{directory} is in use by another broker") from error

    def close(self) -> None:
        """The next one may have it."""
        self._file.close()


def allocate(file: int, size_bytes: int) -> None:
    """Makes a file at least so long, with room on the disk for all of it; raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size_bytes)
    else:  # macOS
        while (length := os.fstat(file).st_size) < size_bytes:
            os.pwrite(file, bytes(min(size_bytes - length, 1 << 20)), length)


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
        self.put: Callable[[int, int], None] = partial(_put_number, self._memory, 0)
        """(block, block with all bits turned): survives the end of this process at once."""

    @property
    def block(self) -> int | None:
        """0 before the first commit; None where the file is damaged."""
        number, turned = _NUMBER.unpack_from(self._memory)
        if number == turned == 0:
            return 0
        return int(number) if number == ~turned else None

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

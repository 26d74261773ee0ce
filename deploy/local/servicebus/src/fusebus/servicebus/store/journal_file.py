"""The newest blocks of the log: a file that is appended to, and written over once its blocks are gone."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fusebus.servicebus.store.checksum import crc32

FILE_NAME: Final = "journal"
MAGIC: Final = b"\x00FBJ"
COPIED_BYTES: Final = 16 << 10  # a block of fewer is put behind its head, larger ones are written beside it
_HEAD = struct.Struct("<4sIQQI")  # magic, crc of the rest, block number, `base`, bytes of the block
_pack_head, _HEAD_BYTES = _HEAD.pack, _HEAD.size


class JournalFile:
    """One record per commit, with growing numbers. `size_bytes` is where the next one goes.

    `base` is the last block of which nothing is expected here: the database knows what is needed of it and all before.
    What lies behind that is of an earlier pass: whole blocks perhaps, but with numbers that the database knows to be
    done with. Writing over pages that are there is cheaper than making the file longer.
    """

    def __init__(self, directory: Path, synchronous: bool) -> None:
        """`synchronous` waits for the disk at each append. Raises OSError."""
        self.path = directory / FILE_NAME
        self.size_bytes = self.base = 0
        self._synchronous = synchronous
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)

    def append(self, number: int, data: bytes) -> int:
        """Writes a block; returns where its data lie. Raises OSError, and then has written nothing."""
        size, start = len(data), self.size_bytes
        end = start + _HEAD_BYTES + size
        base = self.base
        head = _pack_head(MAGIC, crc32(data, (number ^ base) & 0xFFFFFFFF), number, base, size)
        try:
            if size < COPIED_BYTES:
                written = start + os.pwrite(self._file, head + data, start)
            else:
                written = start + os.pwritev(self._file, (head, data), start)
            while written < end:  # a disk that fills up takes a part first and says so next time
                written += os.pwrite(self._file, (head + data)[written - start :], written)
            if self._synchronous:
                os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, start)
            raise
        self.size_bytes = end
        return start + _HEAD_BYTES

    def read(self, position: int, size: int) -> bytes:
        """The data of a block; raises OSError."""
        return os.pread(self._file, size, position)

    def rewind(self, base: int) -> None:
        """The next block goes to the start: all up to `base` are in the database or not needed."""
        self.size_bytes, self.base = 0, base

    def give_back(self) -> None:
        """Releases what lies behind the last block of this pass."""
        os.ftruncate(self._file, self.size_bytes)

    def close(self) -> None:
        """Releases the file."""
        os.close(self._file)

    def recover(self, complaints: list[str], after: int) -> Iterator[tuple[int, int, bytes]]:
        """(number, position, data) of every whole block of this pass: those with a number higher than `after`.

        What is not whole is passed over at the end, and said in `complaints` elsewhere.
        """
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        position = self.size_bytes = 0
        self.base = after
        while (following := _next_block(content, position, after)) is not None:
            if following > position:
                complaints.append(f"journal: {following - position} bytes at {position} are damaged and left out")
            _, _, after, self.base, size = _HEAD.unpack_from(content, following)
            start = following + _HEAD_BYTES
            position = self.size_bytes = start + size
            yield after, start, content[start:position]


def _next_block(content: bytes, position: int, after: int) -> int | None:
    """Where the next whole block with a number above `after` begins."""
    while (position := content.find(MAGIC, position)) >= 0:
        if _is_block(content, position, after):
            return position
        position += 1
    return None


def _is_block(content: bytes, position: int, after: int) -> bool:
    start = position + _HEAD_BYTES
    if start > len(content):
        return False
    _, crc, number, base, size = _HEAD.unpack_from(content, position)
    if number <= after or start + size > len(content):
        return False
    return bool(crc32(content[start : start + size], (number ^ base) & 0xFFFFFFFF) == crc)

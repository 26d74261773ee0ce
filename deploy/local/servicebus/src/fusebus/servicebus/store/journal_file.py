"""The newest blocks of the log: a file that is only appended to, until its blocks move into the database."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE_NAME: Final = "journal"
MAGIC: Final = b"\x00FBJ"
_HEAD = struct.Struct("<4sIQI")  # magic, crc of the rest, block number, bytes of the block


class JournalFile:
    """One record per commit. `size_bytes` is where the next one goes."""

    def __init__(self, directory: Path, synchronous: bool) -> None:
        """`synchronous` waits for the disk at each append. Raises OSError."""
        self.path = directory / FILE_NAME
        self.size_bytes = 0
        self._synchronous = synchronous
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)

    def append(self, number: int, data: bytes) -> int:
        """Writes a block; returns where its data lie. Raises OSError, and then has written nothing."""
        length, start = _HEAD.size + len(data), self.size_bytes
        whole = _HEAD.pack(MAGIC, zlib.crc32(data, number & 0xFFFFFFFF), number, len(data)) + data
        try:
            written = os.pwrite(self._file, whole, start)
            while written < length:  # a disk that fills up takes a part first and says so next time
                written += os.pwrite(self._file, whole[written:], start + written)
            if self._synchronous:
                os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, start)
            raise
        self.size_bytes = start + length
        return start + _HEAD.size

    def read(self, position: int, size: int) -> bytes:
        """The data of a block; raises OSError."""
        return os.pread(self._file, size, position)

    def clear(self) -> None:
        """Its blocks are elsewhere, or no longer needed."""
        os.ftruncate(self._file, 0)
        self.size_bytes = 0

    def close(self) -> None:
        """Releases the file."""
        os.close(self._file)

    def recover(self, complaints: list[str]) -> Iterator[tuple[int, int, bytes]]:
        """(number, position, data) of every whole block; what is not whole is cut off at the end, or said."""
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        position = self.size_bytes = 0
        while position < len(content):
            found = _block_at(content, position)
            if found is None:
                following = _next_block(content, position + 1)
                if following is None:
                    break
                complaints.append(f"journal: {following - position} bytes at {position} are damaged and left out")
                position = following
                continue
            number, data = found
            yield number, position + _HEAD.size, data
            position += _HEAD.size + len(data)
            self.size_bytes = position
        if self.size_bytes < len(content):
            os.ftruncate(self._file, self.size_bytes)


def _crc(number: int, data: bytes) -> int:
    return zlib.crc32(data, number & 0xFFFFFFFF)


def _block_at(content: bytes, position: int) -> tuple[int, bytes] | None:
    if position + _HEAD.size > len(content):
        return None
    magic, crc, number, size = _HEAD.unpack_from(content, position)
    start = position + _HEAD.size
    if magic != MAGIC or start + size > len(content):
        return None
    data = content[start : start + size]
    return (number, data) if _crc(number, data) == crc else None


def _next_block(content: bytes, position: int) -> int | None:
    """Where the next whole block begins."""
    while (position := content.find(MAGIC, position)) >= 0:
        if _block_at(content, position) is not None:
            return position
        position += 1
    return None

"""The newest blocks of the log: a file that is appended to, and written over once its blocks are gone."""

from __future__ import annotations

import mmap
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from fusebus.servicebus.store.marks import allocate

FILE_NAME: Final = "journal"
MAGIC: Final = b"\x00FBJ"
MAPPED_BYTES: Final = 64 << 20  # of the file's start, in which blocks go: a copy into memory, and no system call
READY_BYTES: Final = 8 << 20  # of those: in memory from the start, and all that is mapped where the disk is small
COPIED_BYTES: Final = 16 << 10  # behind those only blocks of fewer are copied: a system call costs less than new pages
MADV_POPULATE_WRITE: Final = 23  # since Linux 5.14
READ_BYTES: Final = 1 << 20  # at a time; of a disk that fails, so much is lost with one bad sector
_HEAD = struct.Struct("<4sQIQQI")  # magic, the pass, crc, block number, `base`, bytes of the data
_BEGINNING = struct.Struct("<4sQ")
_put_head, _pack_head, _HEAD_BYTES = _HEAD.pack_into, _HEAD.pack, _HEAD.size
_NO_HEAD = bytes(_HEAD_BYTES)


class UnreadableBlock(OSError):
    """What was written to the journal file does not come back from it."""


def new_pass() -> int:
    """Names one pass through the file, in every head of it: random, so that no message can pretend to be a block."""
    return secrets.randbits(62) + 1


class Pass(NamedTuple):
    """From one rewinding of the file to the next."""

    id: int
    base: int
    """The last block of which nothing is expected in the file: the database knows what is needed of all up to it."""

    def seed(self) -> int:
        """What the checksums of its blocks begin with, beside each block's number."""
        mixed = self.id ^ self.base * 0x9E3779B97F4A7C15
        return (mixed ^ mixed >> 32) & 0xFFFFFFFF


class JournalFile:
    """One record per commit, with growing numbers. `size_bytes` is where the next one goes.

    What lies behind that is of an earlier pass: whole blocks perhaps, but with another pass's name. Writing over pages
    that are there is cheaper than making the file longer.
    """

    def __init__(self, directory: Path, synchronous: bool) -> None:
        """`synchronous` waits for the disk at each append. Raises OSError."""
        self.path = directory / FILE_NAME
        self.size_bytes = 0
        self._begin(Pass(new_pass(), 0))
        self._synchronous = synchronous
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        self._memory, self._mapped_bytes = self._mapped()

    def _mapped(self) -> tuple[mmap.mmap | bytearray, int]:
        """Room on the disk is taken first: memory that stands for none could only be found missing by a signal."""
        if self._synchronous:  # waits for the disk in any case
            return bytearray(), 0
        for size in filter(None, (MAPPED_BYTES, min(MAPPED_BYTES, READY_BYTES))):
            if self._allocated(size):
                memory = mmap.mmap(self._file, size)
                with suppress(OSError):  # an older kernel: page by page, when they are used
                    memory.madvise(MADV_POPULATE_WRITE, 0, min(size, READY_BYTES))
                return memory, size
        return bytearray(), 0

    def _allocated(self, size: int) -> bool:
        """Whether the file has so much room now; not where the disk would have less left than that for others."""
        before = os.fstat(self._file).st_size
        disk = os.statvfs(self.path)
        if disk.f_bavail * disk.f_frsize < 2 * size - before:
            return before >= size
        try:
            allocate(self._file, size)
        except OSError:
            os.ftruncate(self._file, before)  # what could be had of it is there now, and of no use
            return False
        return True

    def _begin(self, following: Pass) -> None:
        self.now, self._seed = following, following.seed()

    def append(self, number: int, data: bytes) -> int:
        """Writes a block; returns where its data lie. Raises OSError, and then has written nothing."""
        size, start = len(data), self.size_bytes
        behind_head = start + _HEAD_BYTES
        end = behind_head + size
        if end <= self._mapped_bytes and (end <= READY_BYTES or size < COPIED_BYTES):
            memory, (pass_id, base) = self._memory, self.now
            memory[behind_head:end] = data
            # zlib's: a quicker one with wide vectors (isal) makes all that follows dearer, by 3 µs a commit measured
            crc = crc32(data, self._seed ^ number & 0xFFFFFFFF)
            _put_head(memory, start, MAGIC, pass_id, crc, number, base, size)  # last: a head tells of whole data only
        else:
            self._write(start, self._head(number, data), data)
        self.size_bytes = end
        return behind_head

    def _head(self, number: int, data: bytes) -> bytes:
        pass_id, base = self.now
        return _pack_head(MAGIC, pass_id, crc32(data, self._seed ^ number & 0xFFFFFFFF), number, base, len(data))

    def _write(self, start: int, head: bytes, data: bytes) -> None:
        end = start + len(head) + len(data)
        try:
            if len(data) < COPIED_BYTES:
                written = start + os.pwrite(self._file, head + data, start)
            else:
                written = start + os.pwritev(self._file, (head, data), start)
            while written < end:  # a disk that fills up takes a part first and says so next time
                written += os.pwrite(self._file, (head + data)[written - start :], written)
            if self._synchronous:
                os.fdatasync(self._file)
        except OSError:
            self._undo(start)
            raise

    def _undo(self, start: int) -> None:
        """No block begins at `start`; what was never mapped is given back."""
        if start < self._mapped_bytes:
            os.pwrite(self._file, _NO_HEAD[: self._mapped_bytes - start], start)
        os.ftruncate(self._file, max(start, self._mapped_bytes))

    def read(self, number: int, position: int, size: int) -> bytes:
        """The data of a block of this pass; raises OSError, UnreadableBlock."""
        found = os.pread(self._file, _HEAD_BYTES + size, position - _HEAD_BYTES)
        head, data = found[:_HEAD_BYTES], found[_HEAD_BYTES:]
        if len(data) != size or head != self._head(number, data):
            raise UnreadableBlock(f"{self.path}: block {number} at {position} was written, and now reads differently")
        return data

    def rewind(self, following: Pass) -> None:
        """The next block goes to the start: all up to the new pass's `base` are in the database or not needed."""
        used = min(self.size_bytes, self._mapped_bytes)
        self.size_bytes = 0
        self._begin(following)
        if isinstance(self._memory, mmap.mmap) and used > READY_BYTES:
            with suppress(OSError):  # memory that is locked stays; the file has it in any case
                self._memory.madvise(mmap.MADV_DONTNEED, READY_BYTES, used - READY_BYTES)

    def give_back(self) -> None:
        """Releases what lies behind the last block of this pass."""
        os.ftruncate(self._file, max(self.size_bytes, self._mapped_bytes))

    def close(self) -> None:
        """Releases the file."""
        if isinstance(self._memory, mmap.mmap):
            self._memory.close()
        os.close(self._file)

    def recover(self, complaints: list[str], known: Pass) -> Iterator[tuple[int, int, bytes]]:
        """(number, position, data) of every whole block of this pass: those with a number above that of `known`.

        `known` is the pass as the database has it; the file's first head, which no message can lie before, goes before
        that. What is not whole is passed over at the end, and said in `complaints` elsewhere.
        """
        content = self._content(complaints)
        position = self.size_bytes = 0
        pass_id, after = known.id or self.now.id, known.base
        if (first := _block_at(content, 0)) is not None and first.number > after:
            pass_id = first.of.id
        self._begin(Pass(pass_id, after))
        while (found := _next_block(content, position, after, pass_id)) is not None:
            start = found.start - _HEAD_BYTES
            if start > position:
                complaints.append(f"journal: {start - position} bytes at {position} are damaged and left out")
            after = found.number
            self._begin(found.of)
            position = self.size_bytes = found.end
            yield found.number, found.start, content[found.start : found.end]
        if self._synchronous:  # a broker that was killed may have left what the disk does not have yet
            os.fdatasync(self._file)

    def _content(self, complaints: list[str]) -> bytes:
        """The whole file, with zeros where the disk does not give it back."""
        pieces: list[bytes] = []
        for start in range(0, size := os.fstat(self._file).st_size, READ_BYTES):
            expected = min(READ_BYTES, size - start)
            try:
                piece = os.pread(self._file, expected, start)
            except OSError as error:
                complaints.append(f"journal: {expected} bytes at {start} cannot be read: {error.strerror}")
                piece = b""
            pieces.append(piece.ljust(expected, b"\0"))
        return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class _Found:
    """A whole block in the file: of which pass, and where its data lie."""

    of: Pass
    number: int
    start: int
    end: int


def _next_block(content: bytes, position: int, after: int, pass_id: int) -> _Found | None:
    """The next whole block of the pass with a number above `after`. What others wrote into messages can't look like its
    beginning, and so can't keep this busy."""
    begins = _BEGINNING.pack(MAGIC, pass_id)
    while (position := content.find(begins, position)) >= 0:
        found = _block_at(content, position)
        if found is not None and found.number > after:
            return found
        position += 1
    return None


def _block_at(content: bytes, position: int) -> _Found | None:
    start = position + _HEAD_BYTES
    if start > len(content):
        return None
    magic, pass_id, crc, number, base, size = _HEAD.unpack_from(content, position)
    if magic != MAGIC or start + size > len(content):
        return None
    of = Pass(pass_id, base)
    whole = crc32(content[start : start + size], of.seed() ^ number & 0xFFFFFFFF) == crc
    return _Found(of, number, start, start + size) if whole else None

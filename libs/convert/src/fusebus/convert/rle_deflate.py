"""Deflate by runs and Huffman codes alone: one stream, block after block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fusebus.convert import native

MOST_PIXEL_BYTES = 8


class RleDeflater:
    """Writes one raw deflate stream (RFC 1951). For one thread at a time.

    `pixel_bytes` (1 to 8) is how far back runs look besides the byte before; `most` how many bytes a block has at most.
    """

    def __init__(self, pixel_bytes: int, most: int) -> None:
        if not 1 <= pixel_bytes <= MOST_PIXEL_BYTES:
            raise ValueError(f"pixels of {pixel_bytes} bytes: 1 to {MOST_PIXEL_BYTES} are coded")
        self._pixel_bytes = pixel_bytes
        self._most = most
        self._carry = native.Carry()
        # Room as rle_deflate.c asks for it: no run is shorter than 4 bytes, nothing takes more than 14 bits a byte.
        self._segments = np.empty((most // 4 + most // 65535 + 2, 3), np.uint16)
        self._out = np.empty(2 * most + 1024, np.uint8)

    def block(self, data: NDArray[np.uint8]) -> bytes:
        """`data` (contiguous, any shape) as one block; up to 7 of its bits come with what follows.

        Raises ValueError for data in pieces, or more than `most`.
        """
        if not data.flags.c_contiguous or data.size > self._most:
            raise ValueError(
                f"{data.size} bytes in steps of {data.strides}: one piece of at most {self._most} is coded"
            )
        segments, out = self._segments.ctypes.data, self._out.ctypes.data
        written = native.rle_deflate(data.ctypes.data, data.size, self._pixel_bytes, self._carry, segments, out)
        return self._out[:written].tobytes()

    def align(self) -> bytes:
        """An empty stored block: what follows begins with a whole byte."""
        return self._bits(0, 3) + b"\x00\x00\xff\xff"

    def end(self) -> bytes:
        """The last block, an empty one."""
        return self._bits(0b011, 10)

    def _bits(self, bits: int, count: int) -> bytes:
        """What was left and these bits, filled up to a whole byte."""
        whole, self._carry.bits = self._carry.bits | bits << self._carry.count, 0
        count, self._carry.count = self._carry.count + count, 0
        return int(whole).to_bytes((count + 7) // 8, "little")

"""Looks at a protobuf file's framing before anything parses it: what would grow in memory is counted, weights are not.

A parsed message may take fifty times its bytes; only raw tensor data stays as large as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from fusebus.models.manifest import ModelError

MAX_STRUCTURE_BYTES = 48 * 1024 * 1024
"""Nodes, names and shapes: SAM 3 at full size has 9 MB of them."""
MAX_FIELDS = 500_000
"""Initialisers and their fields, nodes and the rest, as far as they are walked: SAM 3 at full size has 20,000."""
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9  # field numbers in ModelProto, GraphProto, TensorProto
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types; groups (3, 4) are obsolete


def check_framing(data: bytes, where: str) -> None:
    """Raises ModelError where the file is cut off, is no protobuf, or has too much that is not weights."""
    counter = _Counter(data, where)
    raw = 0
    for number, kind, start, end in counter.fields(0, len(data)):
        if (number, kind) == (GRAPH, LENGTH):
            raw += _raw_bytes(counter, start, end)
    structure = len(data) - raw
    if structure > MAX_STRUCTURE_BYTES:
        raise ModelError(
            f"{where}: has {structure} bytes besides its weights, allowed are {MAX_STRUCTURE_BYTES};"
            " put weights into raw initialisers"
        )


def _raw_bytes(counter: _Counter, start: int, end: int) -> int:
    return sum(
        after - before
        for number, kind, tensor_start, tensor_end in counter.fields(start, end)
        if (number, kind) == (INITIALIZER, LENGTH)
        for inner, inner_kind, before, after in counter.fields(tensor_start, tensor_end)
        if (inner, inner_kind) == (RAW_DATA, LENGTH)
    )


class _Counter:
    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._where = where
        self._left = MAX_FIELDS

    def fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type, start and end of each field's content."""
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise ModelError(f"{self._where}: has more than {MAX_FIELDS} fields; that is no model of ours")
            tag, at = self._varint(at, end)
            kind = tag & 7
            start = at
            if kind == VARINT:
                _, at = self._varint(at, end)
            elif kind == LENGTH:
                length, start = self._varint(at, end)
                at = start + length
            elif kind in (FIXED32, FIXED64):
                at += 4 if kind == FIXED32 else 8
            else:
                raise self._broken()
            if at > end or tag < 8:
                raise self._broken()
            yield tag >> 3, kind, start, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise self._broken()
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self._broken()

    def _broken(self) -> ModelError:
        return ModelError(f"{self._where}: is cut off or no ONNX file; export or fetch it anew")

"""Checks the tensors that a graph brings: as large as they say, in the listed files, together no more than those."""

from __future__ import annotations

import math
from pathlib import Path

from onnx import TensorProto

from fusebus.models.manifest import ModelError, ModelManifest, open_regular

ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.DOUBLE: 8,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.INT16: 2,
    TensorProto.UINT16: 2,
    TensorProto.INT32: 4,
    TensorProto.UINT32: 4,
    TensorProto.INT64: 8,
    TensorProto.UINT64: 8,
    TensorProto.BOOL: 1,
}
"""Element types that a graph may have, with their size; text, complex and packed types are refused."""
_IN_INT32 = (
    TensorProto.INT32, TensorProto.INT16, TensorProto.INT8, TensorProto.UINT16, TensorProto.UINT8, TensorProto.BOOL,
    TensorProto.FLOAT16, TensorProto.BFLOAT16,
)  # fmt: skip
MAX_RANK = 8
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})


class TensorBudget:
    """Takes one tensor after the other; together they may not claim more bytes than the model's files have.

    So no region of a file is read twice: a thousand tensors over the same gigabyte would be a terabyte in memory.
    """

    def __init__(self, folder: Path, manifest: ModelManifest) -> None:
        self._manifest = manifest
        self._left = {name: found.bytes for name, found in manifest.files.items()}
        self.total = 0
        for name in manifest.files:
            with open_regular(folder / name):
                pass  # no link and no second name, at this moment too

    def take(self, tensor: TensorProto) -> None:
        """Raises ModelError for a tensor that is not what it says."""
        size = tensor_bytes(tensor)
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            self._take_external(tensor, size)
        else:
            _check_inside(tensor, size)
        self.total += size

    def _take_external(self, tensor: TensorProto, size: int) -> None:
        name = tensor.name[:100]
        if tensor.data_location != TensorProto.EXTERNAL or _inside(tensor):
            raise ModelError(f"tensor {name!r} has data inside and outside of the graph")
        keys = [entry.key for entry in tensor.external_data]
        if len(set(keys)) != len(keys) or not set(keys) <= _EXTERNAL_KEYS:
            raise ModelError(f"tensor {name!r} has external data with the keys {sorted(keys)[:9]}")
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in self._left or location == self._manifest.file:
            raise ModelError(
                f"tensor {name!r} reads {location[:200]!r}; external data must be in a file beside the graph that the"
                " manifest lists"
            )
        offset = _count(entries.get("offset", "0"), name)
        length = _count(entries.get("length", str(size)), name)
        if length != size:
            raise ModelError(f"tensor {name!r} reads {length} bytes, its shape needs {size}")
        if offset + length > self._manifest.files[location].bytes:
            raise ModelError(f"tensor {name!r} reads {location} up to byte {offset + length}, beyond its end")
        self._left[location] -= length
        if self._left[location] < 0:
            raise ModelError(f"tensors read {location} more than once, up to {name!r}; give each a region of its own")


def tensor_bytes(tensor: TensorProto) -> int:
    """What the tensor's shape and type need in memory. Raises ModelError."""
    name = tensor.name[:100]
    item = ITEM_BYTES.get(tensor.data_type)
    if item is None:
        raise ModelError(f"tensor {name!r} has the element type {tensor.data_type}, which no graph of ours needs")
    if len(tensor.dims) > MAX_RANK or any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"tensor {name!r} has the shape {list(tensor.dims)[:9]}")
    if tensor.HasField("segment"):
        raise ModelError(f"tensor {name!r} comes in segments; store it whole")
    return item * math.prod(int(dim) for dim in tensor.dims)


def _check_inside(tensor: TensorProto, size: int) -> None:
    found = len(tensor.raw_data) if tensor.HasField("raw_data") else _typed_count(tensor) * ITEM_BYTES[tensor.data_type]
    if tensor.HasField("raw_data") and _typed_count(tensor):
        raise ModelError(f"tensor {tensor.name[:100]!r} has its data twice")
    if found != size:
        raise ModelError(
            f"tensor {tensor.name[:100]!r} of shape {list(tensor.dims)} needs {size} bytes, the graph brings {found}"
        )


def _typed_count(tensor: TensorProto) -> int:
    """Values in the field that belongs to the element type; -1 where others are filled as well."""
    fields = {
        "float_data": (TensorProto.FLOAT,),
        "int32_data": _IN_INT32,
        "int64_data": (TensorProto.INT64,),
        "double_data": (TensorProto.DOUBLE,),
        "uint64_data": (TensorProto.UINT32, TensorProto.UINT64),
        "string_data": (),
    }
    counts: dict[str, int] = {name: len(getattr(tensor, name)) for name in fields}
    own = next((name for name, types in fields.items() if tensor.data_type in types), "")
    return -1 if any(count for name, count in counts.items() if name != own) else counts.get(own, 0)


def _inside(tensor: TensorProto) -> bool:
    return tensor.HasField("raw_data") or _typed_count(tensor) != 0


def _count(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ModelError(f"tensor {name!r} has {text[:40]!r} for an offset or length")
    return int(text)

"""The package's C (rle_deflate.c, average.c), compiled by hatch_build.py. Calls leave Python's lock to others."""

from __future__ import annotations

import ctypes
from pathlib import Path


class Carry(ctypes.Structure):
    """The bits between two blocks that do not fill a byte."""

    _fields_ = (("bits", ctypes.c_uint64), ("count", ctypes.c_uint64))


_library = ctypes.CDLL(str(Path(__file__).with_name("librows.so.1")))
_pointer, _size = ctypes.c_void_p, ctypes.c_size_t

rle_deflate = _library.fusebus_rle_deflate
rle_deflate.restype = _size
rle_deflate.argtypes = (_pointer, _size, _size, ctypes.POINTER(Carry), _pointer, _pointer)

average = _library.fusebus_average
average.restype = None
average.argtypes = (_pointer, _size, _size, _size, _pointer)

"""Options of the C library's malloc, and C libraries without."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from fusebus.host import MallocOption, set_malloc


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="another C library than glibc")
def test_glibc_takes_an_option() -> None:
    code = "from fusebus.host import MallocOption, set_malloc; print(set_malloc(MallocOption.ARENA_MAX, 1))"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout == b"True\n"


def test_another_c_library_goes_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not set_malloc(MallocOption.ARENA_MAX, 1)

"""How many heaps a worker's threads have, in a process of its own, as glibc tells it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

THREADS = 8
CODE = """
import ctypes, sys, threading
from fusebus.inferencer.memory import share_freed_memory
if sys.argv[1] == "shared":
    share_freed_memory()
libc, together, kept = ctypes.CDLL(None), threading.Barrier(int(sys.argv[2])), []
def allocate():
    together.wait()
    kept.append(bytes(100_000))  # larger than what Python keeps in its own pools, less than what is mapped by itself
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(int(sys.argv[2]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="another C library than glibc")


def heaps(how: str, **environment: str) -> int:
    inherited = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-c", CODE, how, str(THREADS)]
    told = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True).stdout
    return told.count("<heap nr=")


def test_all_threads_have_one_heap() -> None:
    assert heaps("plain") > 1, "glibc's own way"
    assert heaps("shared") == 1


def test_who_sets_a_number_of_heaps_has_that() -> None:
    assert heaps("shared", MALLOC_ARENA_MAX="3") == 3

"""Takes from the calling process what a hostile model could use: memory without end, network, other programs.

Linux does all of it; elsewhere what is missing is named, and the parent's watch over memory and time remains.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

# Classic BPF, linux/filter.h: load a word, compare it, return.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_X32 = 0x40000000  # numbers from here on are x86-64's second set of calls

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED_CALLS = {
    # socket, execve, execveat, ptrace, process_vm_readv, process_vm_writev, io_uring_setup (which opens sockets, too),
    # setpgid, setsid: what it forks must stay in the group that is killed
    "x86_64": (41, 59, 322, 101, 310, 311, 425, 109, 112),
    "aarch64": (198, 221, 281, 117, 270, 271, 425, 154, 157),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def confine(memory_bytes: int | None) -> list[str]:
    """Confine this process for good, before it starts a thread; what could not be had, in words.

    `memory_bytes` limits writable private memory; None where the parent's watch must do (CUDA maps more than it uses).
    """
    missing = []
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it reads one folder and writes to a pipe
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    if sys.platform != "linux":
        return ["network and other programs are not cut off (this is not Linux)"]
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # should memory run out, this process goes first
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or not _filter_calls(libc):
        missing.append(f"network is not cut off (seccomp: {os.strerror(ctypes.get_errno())})")
    return missing


def _filter_calls(libc: ctypes.CDLL) -> bool:
    machine = platform.machine()
    if machine not in _AUDIT:
        return False
    refused = _REFUSED_CALLS[machine]
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_JUMP_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _REFUSE)]
    lines += [(_LOAD, 0, 0, _NUMBER), (_JUMP_AT_LEAST, len(refused) + 1, 0, _X32)]
    lines += [(_JUMP_EQUAL, len(refused) - index, 0, number) for index, number in enumerate(refused)]
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    program = _Program(len(lines), (_Instruction * len(lines))(*(_Instruction(*line) for line in lines)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)

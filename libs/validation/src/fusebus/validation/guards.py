"""Takes away from a process what reading a picture does not need: privileges, network, files, memory, time.

Always: no new descriptor (so no file and no socket), bounded address space, CPU time, wall time and file size, no
core dump, no new privileges, another user than root. Where the kernel allows it: a network namespace without
interfaces, and system calls from a short list only. `Guards` says what holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from pathlib import Path

import msgspec

from fusebus.validation.limits import DERIVATIVE_BYTES, Tier

NOBODY = 65_534
_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_CAPABILITY_VERSION = 0x2008_0522

_ALLOWED_CALLS = {
    # read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn pread64 pwrite64
    # readv writev sched_yield mremap madvise getpid exit ftruncate gettimeofday getrusage sigaltstack gettid futex
    # sched_getaffinity clock_gettime clock_nanosleep exit_group newfstatat getrandom membarrier rseq
    "x86_64": "0 1 3 5 8 9 10 11 12 13 14 15 17 18 19 20 24 25 28 39 60 77 96 98 131 186 202 204 228 230 231 262 318 "
    "324 334",
    "aarch64": "63 64 57 80 62 222 226 215 214 134 135 139 67 68 65 66 124 216 233 172 93 46 169 165 132 178 98 123 "
    "113 115 94 79 278 283 293",
}
"""By machine: the system calls that a decoder needs."""
_AUDIT_ARCHITECTURE = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_CLONE_AND_ROBUST_LIST = {"x86_64": (56, 273), "aarch64": (220, 99)}
_CLONE3, _CLONE_THREAD = 435, 0x1_0000
_LOAD, _IF_EQUAL, _IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06  # of the kernel's filter language
_CAPSET = {"x86_64": 126, "aarch64": 91}


class Guards(msgspec.Struct, frozen=True, kw_only=True):
    """What holds beside the limits that always do."""

    network_namespace: bool
    """No interface at all; without it sockets still fail, for want of descriptors."""
    system_calls: bool
    """All but a short list answer EPERM."""


def drop_privileges() -> bool:
    """Leave the network and root behind, for this process and its children. Whether the network could be left."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.geteuid() == 0
    alone = bool(libc.unshare(_CLONE_NEWNET if root else _CLONE_NEWUSER | _CLONE_NEWNET) == 0)
    if root:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
    _drop_capabilities(libc)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return alone


def limit_child(own_bytes: int, tier: Tier, *, threads: bool = False) -> None:
    """Set limits that can only be lowered again; no descriptor can be opened from now on.

    `own_bytes`: the address space that the process has before it reads anything.
    """
    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_FSIZE, DERIVATIVE_BYTES),
        (resource.RLIMIT_AS, own_bytes + tier.memory_bytes),
    ):
        resource.setrlimit(what, (limit, limit))
    if not threads:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    narrow_child(own_bytes, tier)


def narrow_child(own_bytes: int, tier: Tier) -> None:
    """Soft limits for what is next; the hard ones stay. Over the CPU or wall time the kernel ends the process."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min(own_bytes + tier.memory_bytes, most), most))
    resource.setrlimit(resource.RLIMIT_CPU, (tier.cpu_seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.setitimer(signal.ITIMER_REAL, tier.wall_seconds)


def address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()


def forbid_system_calls(*, threads: bool = False) -> bool:
    """Let only _ALLOWED_CALLS through; others answer EPERM. Whether the kernel took the filter.

    `threads`: HEIF's decoder starts one. A call that would make a process of its own is refused all the same.
    """
    machine = platform.machine()
    if machine not in _ALLOWED_CALLS or not sys.platform.startswith("linux"):
        return False
    calls = [int(number) for number in _ALLOWED_CALLS[machine].split()]
    allow, refuse, kill = 0x7FFF_0000, 0x0005_0001, 0x8000_0000
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_IF_EQUAL, 1, 0, _AUDIT_ARCHITECTURE[machine]),
        (_RETURN, 0, 0, kill),
        (_LOAD, 0, 0, 0),  # the call's number
        *(_threads_only(machine, allow, refuse) if threads else ()),
        *((_IF_EQUAL, len(calls) - position, 0, call) for position, call in enumerate(calls)),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, allow),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    header = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(buffer)))
    return bool(ctypes.CDLL(None).prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) == 0)


def _threads_only(machine: str, allow: int, refuse: int) -> tuple[tuple[int, int, int, int], ...]:
    """clone3, whose arguments no filter sees, is unknown here: the C library then takes clone, whose flags it sees."""
    clone, robust_list = _CLONE_AND_ROBUST_LIST[machine]
    unknown_call = 0x0005_0026
    return (
        (_IF_EQUAL, 0, 1, _CLONE3),
        (_RETURN, 0, 0, unknown_call),
        (_IF_EQUAL, 0, 1, robust_list),
        (_RETURN, 0, 0, allow),
        (_IF_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, 16),  # the lower half of its first argument
        (_IF_SET, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, allow),
        (_RETURN, 0, 0, refuse),
    )


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    if platform.machine() in _CAPSET:
        header = ctypes.create_string_buffer(struct.pack("II", _CAPABILITY_VERSION, 0))
        nothing = ctypes.create_string_buffer(bytes(24))
        libc.syscall(_CAPSET[platform.machine()], header, nothing)

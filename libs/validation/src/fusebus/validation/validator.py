"""Asks fork servers for verdicts: one at a time (`ForkServer`), or several side by side (`Validator`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import msgspec

from fusebus.contracts.messages import RejectReason
from fusebus.validation import limits
from fusebus.validation.guards import Guards
from fusebus.validation.protocol import GRACE_SECONDS, REQUEST_BYTES, Ended, Request, Started
from fusebus.validation.verdicts import Cost, Verdict, rejected
from fusebus.vision import ImageError, inspect

START_SECONDS = 60.0
"""A fork server loads its libraries in half a second; a crowded machine takes longer."""
ANSWER_SECONDS = limits.LONGEST_SECONDS + 3 * GRACE_SECONDS
TRIES = 2
"""A child that was killed from outside, or whose server died, gets one more chance."""

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_SMALL_PAGES = {"NUMPY_MADVISE_HUGEPAGE": "0"}
"""Large pages save a tenth of a second at 30 megapixels, or cost half of one where the kernel must tidy up for them."""
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS})


class ValidatorUnavailable(Exception):
    """No verdict could be had; it says nothing of the file, and a later try may succeed."""


class ForkServer:
    """One fork server, started with the first question and again after a failure. Not for several threads at once."""

    def __init__(self, *, heif: bool = False) -> None:
        self._heif = heif
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self.guards: Guards | None = None

    def check(self, data: bytes, *, derivative: bool = False) -> Verdict:
        """The verdict on a file's bytes, with what it cost. Raises ValidatorUnavailable."""
        for last in (*[False] * (TRIES - 1), True):
            try:
                return self._once(data, derivative)
            except (OSError, EOFError, msgspec.DecodeError, ValidatorUnavailable) as error:
                self.close()
                if last:
                    raise ValidatorUnavailable(str(error) or type(error).__name__) from error
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """End the server; the next question starts another."""
        channel, process = self._channel, self._process
        self._channel = self._process = None
        if channel is not None:
            channel.close()
        if process is not None:
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self) -> Guards:
        """Make sure that the server runs; what guards it has beside the limits. Raises OSError, EOFError."""
        if self._channel is None or self.guards is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, "-P", "-s", "-m", "fusebus.validation.server", str(theirs.fileno())]
                self._process = subprocess.Popen(
                    [*command, *(["--heif"] if self._heif else [])],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
                    | _ONE_THREAD
                    | _SMALL_PAGES,
                    cwd="/",
                    start_new_session=True,
                )
            self._channel = ours
            ours.settimeout(START_SECONDS)
            self.guards = msgspec.json.decode(_received(ours), type=Started).guards
            ours.settimeout(ANSWER_SECONDS)
        return self.guards

    def _once(self, data: bytes, derivative: bool) -> Verdict:
        self.start()
        assert self._channel is not None
        with _memory_file() as content, _memory_file() as report, _memory_file() as picture:
            _fill(content, data)
            request = msgspec.json.encode(Request(derivative=derivative))
            socket.send_fds(self._channel, [request], [content, report, picture])
            ended = msgspec.json.decode(_received(self._channel), type=Ended)
            cost = Cost(cpu_seconds=ended.cpu_seconds, wall_seconds=ended.wall_seconds, peak_bytes=ended.peak_bytes)
            if ended.code:
                return msgspec.structs.replace(_without_report(ended), cost=cost)
            verdict = msgspec.json.decode(_content(report, limits.MAX_REPORT_BYTES), type=Verdict)
            rebuilt = _content(picture, limits.DERIVATIVE_BYTES)
        return msgspec.structs.replace(_believed(verdict, rebuilt), cost=cost)


class Validator:
    """Several fork servers as an async context manager; as many files are judged at a time."""

    def __init__(self, servers: int, *, heif: bool = False) -> None:
        self._threads = ThreadPoolExecutor(servers, "validate")
        self._servers = [ForkServer(heif=heif) for _ in range(servers)]
        self._idle: queue.SimpleQueue[ForkServer] = queue.SimpleQueue()
        for server in self._servers:
            self._idle.put(server)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        for server in self._servers:
            await asyncio.to_thread(server.close)

    async def start(self) -> Guards:
        """Start all servers now; what guards they have. Raises OSError, EOFError where they can't be started."""
        loop = asyncio.get_running_loop()
        return (await asyncio.gather(*(loop.run_in_executor(self._threads, one.start) for one in self._servers)))[0]

    async def check(self, data: bytes, *, derivative: bool = False) -> Verdict:
        """The verdict on a file's bytes, with what it cost. Raises ValidatorUnavailable.

        The derivative comes when asked for, and always of HEIF.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._check, data, derivative)

    def _check(self, data: bytes, derivative: bool) -> Verdict:
        server = self._idle.get()
        try:
            return server.check(data, derivative=derivative)
        finally:
            self._idle.put(server)


def _without_report(ended: Ended) -> Verdict:
    """What the end of a child says of its file. Raises ValidatorUnavailable where it says nothing."""
    if -ended.code == signal.SIGXCPU:
        return rejected(RejectReason.TOO_COMPLEX, f"took more than {ended.cpu_seconds:.1f} s of CPU time")
    if -ended.code in _CRASHES:
        return rejected(RejectReason.DAMAGED, f"its decoder died of {signal.Signals(-ended.code).name}")
    raise ValidatorUnavailable(f"the child ended with {ended.code} after {ended.wall_seconds:.1f} s")


def _believed(verdict: Verdict, derivative: bytes) -> Verdict:
    """The child's word where it makes sense: it has read hostile bytes. Raises ValidatorUnavailable."""
    if (verdict.facts is None) == (verdict.reason is None):
        raise ValidatorUnavailable("the child's report contradicts itself")
    if verdict.facts is None or not derivative:
        return verdict
    try:
        header = inspect(derivative)
    except ImageError as error:
        raise ValidatorUnavailable(f"the child's derivative is no picture: {error}") from error
    sides = {verdict.facts.width, verdict.facts.height}
    if header.format != "jpeg" or header.orientation != 1 or {header.width, header.height} != sides:
        raise ValidatorUnavailable("the child's derivative is not the picture that it reports")
    return msgspec.structs.replace(verdict, derivative=derivative)


def _received(channel: socket.socket) -> bytes:
    message = channel.recv(REQUEST_BYTES)
    if not message:
        raise EOFError("the fork server is gone")
    return message


@contextlib.contextmanager
def _memory_file() -> Iterator[int]:
    descriptor = os.memfd_create("picture", os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _fill(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _content(descriptor: int, limit: int) -> bytes:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size > limit:
        raise ValidatorUnavailable(f"the child wrote {size} bytes")
    return os.pread(descriptor, size, 0)

"""Tries a model in a child process under limits of time and memory, before this process touches it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from fusebus.inferencer.trial import TrialOrder, TrialReport

POLL_SECONDS = 0.05
"""How often the child's memory is looked at: at 5 GB/s, what a core can fill, it overshoots by 250 MB."""
PIPE_SECONDS = 5.0
"""How long a dead child's output is waited for: what slipped out of its process group could hold the pipe for ever."""
MAX_OUTPUT_BYTES = 64 * 1024
"""More than a report ever has is not read."""
_KEPT_VARIABLES = re.compile(
    r"PATH|HOME|TMPDIR|LANG|LC_\w+|TZ|LD_LIBRARY_PATH|PYTHON\w+|VIRTUAL_ENV|CUDA_\w+|NVIDIA_\w+"
)
"""The child gets no settings: they hold the keys to storage and bus."""
TRIAL = (sys.executable, "-m", "fusebus.inferencer.trial")


class ModelRefusal(Exception):
    """This model does not serve here: a short code, and the reason in words."""

    def __init__(self, reason: str, description: str) -> None:
        super().__init__(f"{reason}: {description}")
        self.reason = reason
        self.description = description


async def try_model(order: TrialOrder, seconds: float, command: Sequence[str] = TRIAL) -> TrialReport:
    """The report of a model that is fit to serve. Raises ModelRefusal; the child is gone in any case."""
    child = await asyncio.create_subprocess_exec(
        *command,
        msgspec.json.encode(order).decode(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(os.environ),
        start_new_session=True,
    )
    said, complained = bytearray(), bytearray()
    reading = [
        asyncio.create_task(_read(child.stdout, said)),
        asyncio.create_task(_read(child.stderr, complained)),
    ]
    try:
        await _watch(child, order.memory_bytes, seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # whatever else it started goes with it, and lets go of the pipes
        _, late = await asyncio.wait({*reading, asyncio.create_task(child.wait())}, timeout=PIPE_SECONDS)
        for task in late:
            task.cancel()
    return _verdict(child.returncode, bytes(said), bytes(complained))


async def _watch(child: asyncio.subprocess.Process, memory_bytes: int, seconds: float) -> None:
    """Until the child ends. Raises ModelRefusal where it takes too long or too much."""
    deadline = time.monotonic() + seconds
    ended = asyncio.create_task(child.wait())
    try:
        while not ended.done():
            used = peak_memory(child.pid)
            if used is not None and used > memory_bytes:
                raise ModelRefusal("memory", f"took {used} bytes to load, allowed are {memory_bytes}")
            if time.monotonic() > deadline:
                raise ModelRefusal("time_out", f"was not loaded and warm within {seconds:g} s")
            await asyncio.wait({ended}, timeout=POLL_SECONDS)
    finally:
        ended.cancel()


def peak_memory(pid: int) -> int | None:
    """Bytes of physical memory that the process held at most; None where that can't be read (not Linux, ended)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


async def _read(stream: asyncio.StreamReader | None, kept: bytearray) -> None:
    """Keep the first bytes; the rest is taken off the pipe and dropped, so that the child never waits for us."""
    assert stream is not None
    while data := await stream.read(MAX_OUTPUT_BYTES):
        kept += data[: MAX_OUTPUT_BYTES - len(kept)]


def _verdict(code: int | None, said: bytes, complained: bytes) -> TrialReport:
    if code != 0:
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        last = complained.decode(errors="replace").strip().rpartition("\n")[2][:500]
        raise ModelRefusal("crash", f"the process that loaded it ended with {how}" + (f": {last}" if last else ""))
    try:
        report = msgspec.json.decode(said, type=TrialReport)
    except msgspec.DecodeError as error:
        raise ModelRefusal("crash", f"the process that loaded it said something else than a report: {error}") from error
    if report.reason:
        raise ModelRefusal(report.reason, report.description)
    return report


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if _KEPT_VARIABLES.fullmatch(name)}

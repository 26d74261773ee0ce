"""The fork server: a clean process that forks one guarded child for each file and tells how the child ended.

It is started anew by `exec`: no threads, no secrets in its environment, no descriptors but its socket. Everything that
a child needs is loaded before, for a child can open nothing.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator

import cv2
import msgspec
import numpy as np
from PIL import Image, TiffImagePlugin

from fusebus.validation import guards, heif
from fusebus.validation.examine import examine, without_derivative
from fusebus.validation.limits import LARGEST, LONGEST_SECONDS, Tier, header_tier
from fusebus.validation.protocol import GRACE_SECONDS, REQUEST_BYTES, Ended, Request, Started
from fusebus.vision import encode_jpeg

CHUNK_BYTES = 1 << 24
"""Written at a time."""


def main(descriptor: int, with_heif: bool) -> None:
    """Serve the socket until its other end is closed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us
    nowhere = os.open(os.devnull, os.O_RDWR)
    _warm_up(with_heif)
    alone = guards.drop_privileges()
    filtered = _in_child(guards.forbid_system_calls)
    gc.freeze()
    own = guards.address_space()
    with socket.socket(fileno=descriptor) as channel:
        channel.send(msgspec.json.encode(Started(guards=guards.Guards(network_namespace=alone, system_calls=filtered))))
        with contextlib.suppress(ConnectionError):  # whoever asked was killed
            while True:
                message, descriptors, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 3)
                if not message:
                    return
                request = msgspec.json.decode(message, type=Request)
                channel.send(msgspec.json.encode(_run(request, descriptors, nowhere, own, with_heif)))


def _run(request: Request, descriptors: list[int], nowhere: int, own: int, with_heif: bool) -> Ended:
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _judge(request, descriptors, nowhere, own, with_heif)
            code = 0
        finally:
            os._exit(code)
    for descriptor in descriptors:
        os.close(descriptor)
    _wait(LONGEST_SECONDS + GRACE_SECONDS, child)
    _, status, used = os.wait4(child, 0)
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        cpu_seconds=used.ru_utime + used.ru_stime,
        wall_seconds=time.monotonic() - began,
        peak_bytes=used.ru_maxrss * 1024,
    )


def _wait(seconds: float, child: int) -> None:
    """Until the child ends; after so long it is killed."""
    until = time.monotonic() + seconds
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        left = until - time.monotonic()
        if left <= 0:
            os.kill(child, signal.SIGALRM)
            os.kill(child, signal.SIGKILL)
            return
        signal.sigtimedwait({signal.SIGCHLD}, left)


def _judge(request: Request, descriptors: list[int], nowhere: int, own: int, with_heif: bool) -> None:
    """In the child. What it says goes into its two files, and nowhere else."""
    content, report, derivative = descriptors
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    for other in range(3, max(nowhere, *descriptors) + 64):
        if other not in descriptors:
            try:
                os.close(other)
            except OSError:
                continue
    guards.limit_child(own, LARGEST, threads=with_heif)
    guards.narrow_child(own, header_tier(os.lseek(content, 0, os.SEEK_END)))

    def narrow(tier: Tier) -> None:
        guards.narrow_child(own, tier)
        guards.forbid_system_calls(threads=with_heif)

    verdict = examine(_read(content), derivative=request.derivative, heif=with_heif, narrow=narrow)
    _write(derivative, verdict.derivative)
    _write(report, msgspec.json.encode(without_derivative(verdict)))


def _read(descriptor: int) -> bytes:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    return os.pread(descriptor, size, 0)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[:CHUNK_BYTES]) :]


def _in_child(question: object) -> bool:
    """The answer of a function that a process can't take back."""
    child = os.fork()
    if child == 0:
        os._exit(0 if callable(question) and question() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _warm_up(with_heif: bool) -> None:
    """Judge one small picture for each way through the decoders, so that every table, codec and plug-in is there."""
    cv2.setNumThreads(0)
    assert TiffImagePlugin, "Pillow loads it when it meets EXIF, which is too late in a child"
    if with_heif:
        heif.prepare()
    for sample in _samples():
        verdict = examine(sample, derivative=True)
        assert verdict.accepted, verdict.detail


def _samples() -> Iterator[bytes]:
    pixels = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 3)).reshape(64, 64, 3)
    clear = np.dstack([pixels, pixels[:, :, :1]])
    yield encode_jpeg(pixels)
    for kind in (".png", ".webp"):
        for picture in (pixels, clear):
            yield bytes(cv2.imencode(kind, picture)[1])
    for kind, mode in (("JPEG", "CMYK"), ("PNG", "LA"), ("PNG", "P")):  # Pillow's ways
        out = io.BytesIO()
        more = {"transparency": 0} if mode == "P" else {}
        Image.fromarray(clear).convert(mode).save(out, kind, **more)
        yield out.getvalue()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:] == ["--heif"])

"""What a guarded process can no longer do, tried for real; and what becomes of a question when the world fails it."""

import asyncio
import io
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_bytes import SECRET, exif
from PIL import Image

from fusebus.contracts.messages import RejectReason
from fusebus.validation import ForkServer, Validator, ValidatorUnavailable, examine, png_data, validator
from fusebus.validation.limits import LARGEST, MAX_BYTES, SMALL_PIXELS, tier
from fusebus.validation.protocol import Ended
from fusebus.vision import Damaged, encode_jpeg
from fusebus.vision.formats import png_chunks

PHOTO = encode_jpeg(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8))

TRIALS = """
import sys
threads = "threads" in sys.argv
import json, os, resource, socket, subprocess, sys, threading, time
from fusebus.validation import guards
from fusebus.validation.limits import Tier
import importlib

def trial(what):
    try:
        what()
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        return type(error).__name__
    return "done"

def network():
    with socket.socket() as found:
        found.connect(("127.0.0.1", 1))

file = os.memfd_create("out")
trials = {
    "open": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "socket": network,
    "pipe": os.pipe,
    "memory": lambda: bytearray(300_000_000),
    "write": lambda: [os.write(file, bytes(1 << 24)) for _ in range(20)],
    "raise": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    "fork": os.fork,
    "thread": lambda: threading.Thread(target=int).start(),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "unlink": lambda: os.unlink("/tmp/nothing-of-this-name"),
    "root": lambda: os.setuid(0),
}
guards.drop_privileges()
spent = int(time.process_time())  # a child of the fork server begins with none; here the imports count
tier = Tier(memory_bytes=100_000_000, cpu_seconds=spent + 2, wall_seconds=40.0)
guards.limit_child(guards.address_space(), tier, threads=threads)
filtered = guards.forbid_system_calls(threads=threads)
print(json.dumps({"filtered": filtered, "user": os.geteuid() if not filtered else -1,
                  **{name: trial(what) for name, what in trials.items()}}), flush=True)
while True:
    pass
"""


@pytest.mark.parametrize("allowed", [(), ("threads",)], ids=["usual", "heif"])
def test_a_guarded_process_has_no_files_sockets_children_memory_or_time_beyond_its_limits(
    allowed: tuple[str, ...],
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRIALS, *allowed], capture_output=True, timeout=60, check=False, text=True
    )
    assert done.stdout, f"it ended with {done.returncode} before it had tried anything: {done.stderr}"
    found = json.loads(done.stdout)
    if not found.pop("filtered"):
        pytest.skip("this kernel takes no system call filter")
    found.pop("user")
    assert (found.pop("thread") == "done") == bool(allowed)
    assert "done" not in found.values(), found
    assert found["memory"] == "MemoryError"
    assert done.returncode == -signal.SIGXCPU, "it computed until its time was up"


def test_the_fork_server_has_one_thread_no_secrets_no_privileges_and_no_foreign_descriptors(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEBUS_BLOBS_CONNECTION", "AccountKey=secret")
    fresh = ForkServer()
    kept = os.open(os.devnull, os.O_RDONLY)  # must not be passed on
    os.set_inheritable(kept, True)
    try:
        fresh.start()
        assert fresh._process is not None
        process = Path("/proc", str(fresh._process.pid))
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert (status["Threads"], status["NoNewPrivs"], int(status["CapEff"], 16)) == ("1", "1", 0)
        assert "0" not in status["Uid"].split() or os.geteuid() != 0
        assert len(list((process / "fd").iterdir())) == 5, "standard ones, the socket, /dev/null"
    finally:
        os.close(kept)
        fresh.close()
    assert not process.exists()
    assert set(validator._KEPT_VARIABLES).isdisjoint({"FUSEBUS_BLOBS_CONNECTION", "HOME", "AZURE_CLIENT_SECRET"})


def test_a_server_that_was_killed_is_started_again_without_a_word() -> None:
    server = ForkServer()
    try:
        assert server.check(PHOTO).accepted
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        assert server.check(PHOTO).accepted
    finally:
        server.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (-signal.SIGXCPU, RejectReason.TOO_COMPLEX),
        (-signal.SIGSEGV, RejectReason.DAMAGED),
        (-signal.SIGABRT, RejectReason.DAMAGED),
        (-signal.SIGKILL, None),
        (-signal.SIGALRM, None),
        (1, None),
    ],
)
def test_a_child_that_dies_of_its_file_is_a_verdict_one_that_dies_of_the_machine_is_none(
    code: int, reason: RejectReason | None
) -> None:
    ended = Ended(code=code, cpu_seconds=1.0, wall_seconds=2.0, peak_bytes=3)
    if reason is None:
        with pytest.raises(ValidatorUnavailable):
            validator._without_report(ended)
    else:
        assert validator._without_report(ended).reason is reason


@pytest.mark.parametrize("error", [PermissionError(1, "no"), OSError(24, "too many open files"), ImportError("gone")])
def test_what_our_own_code_lacks_in_a_child_is_never_the_fault_of_the_file(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoder(data: bytes, *_: object, **__: object) -> None:
        if isinstance(error, OSError):
            raise Damaged("the decoder gave up") from error
        raise error

    monkeypatch.setattr(examine, "decode", decoder)
    with pytest.raises(type(error)):
        examine.examine(PHOTO)


def test_pixel_data_in_one_chunk_is_fed_a_little_at_a_time_else_its_rest_is_copied_with_each_piece() -> None:
    out = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    png = out.getvalue()
    data = b"".join(png[one.start : one.start + one.length] for one in png_chunks(png) if one.kind == b"IDAT")
    whole = png[:33] + struct.pack(">I", len(data)) + b"IDAT" + data + bytes(4)
    assert len(data) > 3 * png_data.BLOCK_BYTES
    assert max(map(len, png_data._compressed(whole))) == png_data.BLOCK_BYTES
    assert b"".join(png_data._compressed(whole)) == data


def test_the_limits_of_a_picture_up_to_30_megapixels_add_up_to_512_megabytes() -> None:
    own = 40_000_000  # resident bytes of a fork server that are in use
    for kind in ("jpeg", "progressive", "arithmetic", "png", "webp"):
        small, large = tier(kind, SMALL_PIXELS, 8_000_000), tier(kind, 100_000_000, MAX_BYTES)
        assert own + small.memory_bytes <= 600_000_000, "address space; what is resident of it, the README says"
        assert small.memory_bytes < large.memory_bytes <= LARGEST.memory_bytes
        assert small.cpu_seconds < large.cpu_seconds


async def test_several_files_are_judged_side_by_side_and_each_gets_its_own_verdict() -> None:
    async with Validator(2) as found:
        guards = await found.start()
        assert isinstance(guards.network_namespace, bool)
        verdicts = await asyncio.gather(*(found.check(PHOTO if n % 2 else b"no photo") for n in range(12)))
    assert [one.accepted for one in verdicts] == [bool(n % 2) for n in range(12)]


def test_heif_is_judged_where_it_is_switched_on_and_always_rebuilt() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[:, :80] = (200, 30, 30)
    out = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(picture)).save(out, quality=90)
    server = ForkServer(heif=True)
    try:
        verdict = server.check(out.getvalue())
        assert verdict.facts is not None, verdict.detail
        assert (verdict.facts.format, verdict.facts.width, verdict.facts.height) == ("heif", 160, 120)
        assert verdict.derivative.startswith(b"\xff\xd8\xff")
        for broken in (out.getvalue()[:-400], out.getvalue()[:200]):
            assert server.check(broken).reason is RejectReason.DAMAGED
        for turn in range(1, 9):
            out = io.BytesIO()
            noise = np.random.default_rng(turn).integers(0, 255, (120, 160, 3), np.uint8)
            secret = b"<x:xmpmeta>" + SECRET
            pillow_heif.from_pillow(Image.fromarray(noise)).save(out, quality=90, exif=exif(turn), xmp=secret)
            data = out.getvalue()
            verdict = server.check(data)
            assert verdict.facts is not None
            assert (verdict.facts.width, verdict.facts.height) == ((160, 120) if turn < 5 else (120, 160))
            assert verdict.facts.camera == "Van Cam 3" and SECRET[:12] not in verdict.derivative
            at = data.index(b"mdat") + len(data) // 2
            assert server.check(data[:at] + bytes(300) + data[at + 300 :]).reason is RejectReason.DAMAGED
        assert server.check(PHOTO).accepted
    finally:
        server.close()

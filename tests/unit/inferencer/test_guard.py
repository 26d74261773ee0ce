"""What a hostile or unlucky model may do to the process that tries it, and that this one survives it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fusebus.inferencer.guard import ModelRefusal, peak_memory, try_model
from fusebus.inferencer.trial import TrialOrder

LIMIT = 300_000_000  # bytes


def order(memory_bytes: int = LIMIT) -> TrialOrder:
    return TrialOrder(
        folder="/nowhere",
        provider="CPUExecutionProvider",
        intra_op_threads=1,
        max_batch=2,
        memory_bytes=memory_bytes,
    )


def program(text: str) -> tuple[str, ...]:
    return sys.executable, "-c", text


async def refusal(text: str, seconds: float = 20) -> ModelRefusal:
    with pytest.raises(ModelRefusal) as raised:
        await try_model(order(), seconds, program(text))
    return raised.value


async def test_a_hang_is_ended_and_refused(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    began = time.monotonic()
    error = await refusal(f"import os; open({str(mark)!r}, 'w').write(str(os.getpid()))\nwhile True: pass", seconds=2.0)
    assert (error.reason, time.monotonic() - began < 20) == ("time_out", True)
    assert "within 2 s" in error.description
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


async def test_what_the_child_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    text = f"import os, time\nif os.fork() == 0: open({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    assert (await refusal(text, seconds=2.5)).reason == "time_out"
    wait_for(lambda: is_gone(int(mark.read_text())))


async def test_what_slipped_away_with_the_pipes_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusebus.inferencer.guard.PIPE_SECONDS", 0.5)
    mark = tmp_path / "pid"
    slip = f"os.setsid(); open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    async with asyncio.timeout(60):
        error = await refusal(f"import os, time\nif os.fork() == 0: {slip}\ntime.sleep(60)", seconds=2.5)
    assert error.reason == "time_out"
    os.kill(int(mark.read_text()), signal.SIGKILL)


async def test_a_memory_bomb_is_ended_and_refused() -> None:
    error = await refusal("found = []\nwhile True: found.append(bytearray(20_000_000))")
    assert error.reason == "memory"
    assert str(LIMIT) in error.description


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import sys; sys.exit('no such device')", "exit code 1: no such device"),
        ("print('hello')", "something else than a report"),
        ("pass", "something else than a report"),
    ],
)
async def test_a_crash_is_refused_with_how_it_ended(text: str, says: str) -> None:
    error = await refusal(text)
    assert error.reason == "crash"
    assert says in error.description


async def test_output_without_end_is_neither_kept_nor_waited_for() -> None:
    error = await refusal("import sys\nfor _ in range(200): sys.stdout.write('x' * 100_000)")
    assert error.reason == "crash"
    assert len(error.description) < 1000


async def test_the_child_gets_none_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBUS_BLOBS_CONNECTION", "AccountKey=secret")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "secret")
    error = await refusal("import os, sys; sys.exit(' '.join(sorted(os.environ)))")
    assert "FUSEBUS" not in error.description
    assert "AZURE" not in error.description
    assert "PATH" in error.description


async def test_a_folder_that_is_no_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusal) as raised:
        await try_model(order(memory_bytes=2 * 10**9), 30)
    assert raised.value.reason == "files"
    assert "manifest.json" in raised.value.description


def test_the_memory_of_a_process_that_ended_is_unknown() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert peak_memory(ended.pid) is None
    if sys.platform == "linux":
        assert (peak_memory(os.getpid()) or 0) > 10**7


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "socket.create_connection(('127.0.0.1', 9))",
        "os.execv('/bin/true', ['true'])",
        "subprocess.run(['/bin/true'])",
        "threading.Thread(target=lambda: socket.socket()).run()",
        "os.setsid()",
        "os.setpgid(0, 0)",
    ],
)
def test_a_confined_process_has_no_network_starts_no_program_and_stays_in_its_group(attempt: str) -> None:
    text = (
        "import os, socket, subprocess, threading\n"
        "from fusebus.inferencer.confinement import confine\n"
        f"assert confine(10**9) == []\ntry: {attempt}\nexcept PermissionError: print('refused')"
    )
    ran = subprocess.run([sys.executable, "-c", text], check=False, capture_output=True, text=True)
    assert ran.stdout.strip() == "refused", ran.stderr


def test_a_confined_process_gets_no_more_memory_than_its_limit() -> None:
    text = (
        "from fusebus.inferencer.confinement import confine\nconfine(200_000_000)\n"
        "try: bytearray(400_000_000)\nexcept MemoryError: print('refused')\n"
    )
    ran = subprocess.run([sys.executable, "-c", text], check=False, capture_output=True, text=True)
    assert ran.stdout.strip() == "refused", ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's death is Linux's")
def test_a_worker_that_is_killed_leaves_no_trial_behind(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    hang = (
        f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid()))\n"
        "from fusebus.inferencer.confinement import confine\nconfine(10**9)\n"
        f"open({str(mark)!r} + '.confined', 'w').close()\ntime.sleep(100)"
    )
    worker = (
        "import asyncio, sys\nfrom fusebus.inferencer.guard import try_model\n"
        "from fusebus.inferencer.trial import TrialOrder\n"
        "order = TrialOrder(folder='', provider='', intra_op_threads=1, max_batch=1, memory_bytes=10**9)\n"
        f"asyncio.run(try_model(order, 90, (sys.executable, '-c', {hang!r})))"
    )
    parent = subprocess.Popen([sys.executable, "-c", worker])
    confined = Path(f"{mark}.confined")
    wait_for(confined.exists)
    parent.kill()
    parent.wait()
    wait_for(lambda: is_gone(int(mark.read_text())))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    """Ended, though perhaps nobody has collected it yet."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from fusebus.stack.processes import ProcessFailed, Supervised, started_at

READY_THEN_WAIT = "import time; print('ready', flush=True); time.sleep(60)"
LIMIT_SECONDS = 60.0


def supervised(tmp_path: Path, program: str, **options: object) -> Supervised:
    command = [sys.executable, "-c", program]
    return Supervised("child", command, dict(os.environ), tmp_path / "child.log", **options)  # type: ignore[arg-type]


async def until(condition: object) -> None:
    deadline = monotonic() + LIMIT_SECONDS
    while not condition():  # type: ignore[operator]
        assert monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)


async def test_a_killed_child_comes_back(tmp_path: Path) -> None:
    child = supervised(tmp_path, READY_THEN_WAIT, restart_delay_seconds=0.05)
    child.start()
    try:
        await child.line(LIMIT_SECONDS, "ready")
        assert child.process is not None
        first = child.process.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.process is not None and child.process.pid != first)
        await until(lambda: child.output().count("ready") == 2)
    finally:
        await child.stop()


async def test_a_child_that_always_dies_is_given_up_with_the_end_of_its_output(tmp_path: Path) -> None:
    child = supervised(
        tmp_path, "print('no settings'); raise SystemExit(2)", restart_delay_seconds=0.01, most_restarts_per_minute=2
    )
    child.start()
    await until(lambda: child.failure is not None)
    assert "exit code 2: no settings" in str(child.failure)
    await child.stop()


async def test_a_child_that_ends_before_it_is_ready_is_explained(tmp_path: Path) -> None:
    child = supervised(tmp_path, "print('port taken')", restart=False)
    child.start()
    with pytest.raises(ProcessFailed, match="ended before it was ready: port taken"):
        await child.line(LIMIT_SECONDS, "never printed")
    await child.stop()


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY_THEN_WAIT
    child = supervised(tmp_path, program, stop_grace_seconds=0.2)
    child.start()
    await child.line(LIMIT_SECONDS, "ready")
    process = child.process
    await child.stop()
    assert process is not None
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, sys
from pathlib import Path
from fusebus.stack.processes import Supervised
async def main():
    command = [sys.executable, "-c", {READY_THEN_WAIT!r}]
    child = Supervised("child", command, dict(os.environ), Path({str(tmp_path / "log")!r}))
    child.start()
    await child.line(15, "ready")
    print(child.process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    started = started_at(child)
    parent.kill()
    parent.wait()
    deadline = monotonic() + LIMIT_SECONDS
    while started_at(child) == started and Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert monotonic() < deadline, "the child outlived its parent"

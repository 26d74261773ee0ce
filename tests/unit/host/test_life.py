import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep

PROGRAM = """
import sys, msgspec
from fusebus.host import Life, run_service
class Settings(msgspec.Struct, frozen=True, kw_only=True):
    slots: int = 1
async def main(settings: Settings, life: Life) -> None:
    life.health.ready = True
    life.health.liveness("slots", lambda: settings.slots > 0)
    if settings.slots == 9:
        raise RuntimeError("boom")
    await life.stop.wait()
sys.exit(run_service("demo", Settings, main))
"""


ON_UVLOOP = """
import os, signal, sys, msgspec, uvloop
from fusebus.host import Life, run_service
class Settings(msgspec.Struct, frozen=True, kw_only=True):
    slots: int = 1
async def main(settings: Settings, life: Life) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await life.stop.wait()
code = run_service("demo", Settings, main, event_loop=uvloop.new_event_loop)
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
sys.exit(code)
"""


def program(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(port: int, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    process = program(FUSEBUS_HEALTH_PORT=str(port), **environment)
    deadline = monotonic() + 60
    while monotonic() < deadline:
        with suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10)
            break
        sleep(0.05)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_help_lists_the_settings_and_an_example() -> None:
    out, _ = program("--help").communicate(timeout=60)
    assert "FUSEBUS_DEMO_SLOTS" in out
    assert "Example:" in out
    assert "Exit codes:" in out


def test_wrong_settings_end_with_exit_code_2_and_name_the_variable() -> None:
    process = program(FUSEBUS_DEMO_SLOTS="many")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "FUSEBUS_DEMO_SLOTS='many'" in err


def test_a_failure_ends_with_exit_code_1_and_its_reason_in_the_log() -> None:
    process = program(FUSEBUS_DEMO_SLOTS="9")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "boom" in err


def test_sigterm_ends_with_exit_code_0(unused_tcp_port: int) -> None:
    with running(unused_tcp_port) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_health_tells_ready_and_dead_apart(unused_tcp_port: int) -> None:
    with running(unused_tcp_port, FUSEBUS_DEMO_SLOTS="0"):
        assert status(unused_tcp_port, "/readyz") == 200
        assert status(unused_tcp_port, "/healthz") == 503


def test_a_service_without_work_tells_that_it_is_up(unused_tcp_port: int) -> None:
    with running(unused_tcp_port) as process:
        with urllib.request.urlopen(f"http://127.0.0.1:{unused_tcp_port}/metrics", timeout=20) as answer:
            page = answer.read().decode()
        assert "\nfusebus_service_uptime_seconds " in page and "target_info{" in page
        assert process.poll() is None


def test_on_uvloop_a_signal_stops_it_and_the_next_one_is_not_unheard() -> None:
    done = subprocess.run([sys.executable, "-c", ON_UVLOOP], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr

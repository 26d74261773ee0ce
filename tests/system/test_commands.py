"""The commands as people call them: own processes, real exit codes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)
LIMIT_SECONDS = 240.0
FUSEBUS = [sys.executable, "-m", "fusebus.console"]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FUSEBUS_")}


def fusebus(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*FUSEBUS, *arguments],
        check=False,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )


def test_run_analyses_a_folder_and_its_exit_code_says_that_some_were_rejected(
    tmp_path: Path, photographs: Callable[[int, int], list[bytes]], folder_with: Callable[[dict[str, bytes]], Path]
) -> None:
    one, two = photographs(720_000, 2)
    folder_with({"one.jpg": one, "below/two.jpg": two, "bad.jpg": one[:2000]})
    result = fusebus(tmp_path, "run", "photos", "--out", "results", "--json")
    assert result.returncode == 3, result.stderr
    said = json.loads(result.stdout)
    assert {file["name"]: file["state"] for file in said["files"]} == {
        "bad.jpg": "rejected",
        "below/two.jpg": "analysed",
        "one.jpg": "analysed",
    }
    for file in said["files"]:
        if file["state"] == "analysed":
            assert (tmp_path / "results" / file["annotated"]).read_bytes().startswith(b"\xff\xd8")
            assert json.loads((tmp_path / "results" / file["json"]).read_bytes())["schema_version"] == 1
    page = (tmp_path / "results/report/index.html").read_text()
    assert 'href="../annotated/below_two.jpg"' in page
    assert len(list((tmp_path / "results/mail").glob("*.eml"))) == 1


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl-c"),
        pytest.param(signal.SIGTERM, id="sigterm", marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, id="closed terminal", marks=pytest.mark.long),
    ],
)
def test_an_interrupted_run_stops_everything_that_it_started(
    tmp_path: Path,
    number: signal.Signals,
    photographs: Callable[[int, int], list[bytes]],
    folder_with: Callable[[dict[str, bytes]], Path],
) -> None:
    folder_with({"one.jpg": photographs(720_000, 1)[0]})
    log = tmp_path / "run.log"
    with log.open("w") as output:
        command = [*FUSEBUS, "run", "photos", "--out", "results"]
        # What a shell starts in the background ignores Ctrl-C, and so would our child.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=output, stderr=output)
        signal.signal(signal.SIGINT, before)
    deadline = monotonic() + LIMIT_SECONDS
    while "to go;" not in log.read_text():
        assert process.poll() is None and monotonic() < deadline, log.read_text()
        sleep(0.1)
    started = children_of(process.pid)
    process.send_signal(number)
    assert process.wait(60) == 130, log.read_text()
    assert started
    assert not [child for child in started if Path(f"/proc/{child}").exists()]
    assert "Traceback" not in log.read_text()


def children_of(process: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{process}/task").glob("*/children") for child in task.read_text().split()
    ]


@pytest.fixture
def up(tmp_path: Path) -> Any:
    """`fusebus up` in an empty folder, ready."""
    log = (tmp_path / "up.log").open("w")
    process = subprocess.Popen([*FUSEBUS, "up"], cwd=tmp_path, env=environment(), stdout=log, stderr=log)
    deadline = monotonic() + LIMIT_SECONDS
    while "\nup: " not in (tmp_path / "up.log").read_text():
        assert process.poll() is None, (tmp_path / "up.log").read_text()
        assert monotonic() < deadline, (tmp_path / "up.log").read_text()
        sleep(0.1)
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.long
def test_another_terminal_uploads_looks_and_takes_the_stack_down(
    tmp_path: Path,
    up: "subprocess.Popen[bytes]",
    photographs: Callable[[int, int], list[bytes]],
    folder_with: Callable[[dict[str, bytes]], Path],
) -> None:
    folder_with({"one.jpg": photographs(720_000, 1)[0]})
    assert fusebus(tmp_path, "up").returncode == 2
    assert oct((tmp_path / ".fusebus/settings.toml").stat().st_mode)[-3:] == "600"
    first = json.loads(fusebus(tmp_path, "upload", "photos", "--supplier", "acme", "--json").stdout)
    again = json.loads(fusebus(tmp_path, "upload", "photos", "--supplier", "acme", "--json").stdout)
    assert (first["files"][0]["outcome"], again["files"][0]["outcome"]) == ("sent", "already there")
    deadline = monotonic() + LIMIT_SECONDS
    while True:
        seen = json.loads(fusebus(tmp_path, "status", "--json").stdout)
        if seen["runs"] and seen["runs"][0]["state"] == "complete":
            break
        assert monotonic() < deadline, seen
    assert seen["runs"][0]["by_state"] == {"analysed": 1}
    assert fusebus(tmp_path, "down").stdout == "down\n"
    assert up.wait(60) == 0
    assert not (tmp_path / ".fusebus/settings.toml").exists()
    assert fusebus(tmp_path, "status").returncode != 0

"""The stack of docker-compose.yml for the whole session: images built, up and healthy; logs kept of what fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fusebus.blobs import Blobs
from fusebus.blobs.layout import RESULTS, report_name
from fusebus.console.settings import console_settings
from fusebus.ledger import Ledger, RunRow, RunState, UploadRow
from fusebus.stack.stack import free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ARTEFACTS = ROOT / "out" / "compose"
sys.path.insert(0, str(HERE))

PROJECT = "fusebus-test"
LIMIT_SECONDS = float(os.environ.get("COMPOSE_TEST_SECONDS", "720"))  # of all, the build included, on 2 quiet cores
COMMAND_SECONDS = 240.0
BUILD_SECONDS = 600.0
DELIVERY_SECONDS = 180.0
LOOK_SECONDS = 0.5
REPORT_BYTES = 50_000_000
QUICKER: dict[str, dict[str, Any]] = {
    "topology": {"lock_seconds": 10.0},
    "ingest": {"run_quiet_seconds": 12.0, "sweep_interval_seconds": 1.0},
    "notifier": {"run_quiet_seconds": 12.0},
    "dispatcher": {"boot_seconds": 2.0, "lease_seconds": 15},
}


class ComposeStack:
    """Commands to the stack, and what it shows to the outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mail_port = free_port()
        template = folder / "settings.toml"
        template.write_text(_quicker((ROOT / "deploy/docker/settings.toml").read_text(encoding="utf-8")))
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_ANSI": "never",
            "COMPOSE_PROGRESS": "plain",
            "COMPOSE_PARALLEL_LIMIT": "1",  # images share their first steps: the second finds what the first has made
            "FUSEBUS_SETTINGS_TEMPLATE": str(template),
            "FUSEBUS_MAIL_PORT": str(self.mail_port),
            "FUSEBUS_BROKER_PORT": str(free_port()),
            "FUSEBUS_BLOB_PORT": str(free_port()),
            "FUSEBUS_TABLE_PORT": str(free_port()),
        }

    def run(self, *command: str | Path, seconds: float = COMMAND_SECONDS, check: bool = True) -> str:
        """What a command of the repository's root prints to standard output; its errors go into the failure."""
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and ended.returncode:
            pytest.fail(
                f"{' '.join(map(str, command))}: {ended.returncode}\n{ended.stdout[-2000:]}{ended.stderr[-6000:]}"
            )
        return ended.stdout

    def compose(self, *arguments: str, seconds: float = COMMAND_SECONDS, check: bool = True) -> str:
        """`docker compose` for this project."""
        return self.run("docker", "compose", *arguments, seconds=seconds, check=check)

    def up(self, **copies: int) -> None:
        """Everything up and healthy, with so many containers of a service."""
        scales = [part for service, number in copies.items() for part in ("--scale", f"{service}={number}")]
        self.compose("up", "--detach", "--wait", "--wait-timeout", "120", *scales)
        self.run("deploy/docker/host-settings", self.folder)

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """`docker inspect` of the containers that are up."""
        ids = self.compose("ps", "--quiet", *([service] if service else [])).split()
        return json.loads(self.run("docker", "inspect", *ids)) if ids else []

    def logs(self, service: str) -> str:
        """What its containers wrote so far."""
        return self.compose("logs", "--no-color", "--no-log-prefix", service)

    # --- from outside

    @property
    def settings_file(self) -> Path:
        """By which programs of this machine reach the stack."""
        return self.folder / "containers.toml"

    def grant(self, supplier: str) -> str:
        """A new supplier's link."""
        fusebus = [sys.executable, "-m", "fusebus.console", "supplier"]
        settings = ["--settings", str(self.settings_file)]
        self.run(*fusebus, "add", supplier, *settings)
        return link_in(self.run(*fusebus, "grant", supplier, *settings))

    def send(self, photos: Path, link: str) -> subprocess.Popen[str]:
        """The suppliers' tool at work."""
        return subprocess.Popen(
            [sys.executable, "-m", "fusebus.upload", photos],
            env={**os.environ, "FUSEBUS_UPLOAD_SAS": link},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def runs(self, supplier: str) -> list[tuple[RunRow, list[UploadRow]]]:
        """Of one supplier, as the ledger has them."""

        async def read() -> list[tuple[RunRow, list[UploadRow]]]:
            async with Ledger(console_settings(self.settings_file).ledger) as ledger:
                return [(run, await ledger.uploads(run.run_id)) for run in await ledger.runs(supplier)]

        return asyncio.run(read())

    def report(self, run_id: str) -> str:
        """The page of a run."""

        async def read() -> bytes:
            async with Blobs(console_settings(self.settings_file).blobs) as blobs:
                return await blobs.read(RESULTS, report_name(run_id), max_bytes=REPORT_BYTES)

        return asyncio.run(read()).decode()

    def mails(self) -> list[str]:
        """Message-IDs of all mails that arrived; one that arrived twice is there twice."""
        url = f"http://127.0.0.1:{self.mail_port}/api/v1/messages"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return [mail["MessageID"] for mail in json.load(answer)["messages"]]

    def summaries(self, run_id: str) -> int:
        """How many summary mails of a run arrived."""
        return sum(name.startswith(f"run-{run_id}.") for name in self.mails())

    def until_done(self, supplier: str, photos: set[str], seconds: float = DELIVERY_SECONDS) -> list[UploadRow]:
        """Wait until every photo has its final and every run its mail; each must be there exactly once."""
        deadline = time.monotonic() + seconds
        while True:
            runs = self.runs(supplier)
            rows = [row for _, uploads in runs for row in uploads]
            over = all(run.state is RunState.COMPLETE and self.summaries(run.run_id) for run, _ in runs)
            if over and {row.blob_name for row in rows} >= photos and all(row.final for row in rows):
                break
            if time.monotonic() > deadline:
                states = {run.run_id: run.state.value for run, _ in runs}
                waiting = sorted({row.blob_name for row in rows if row.final is None})
                pytest.fail(
                    f"{supplier}: {states}, missing {photos - {row.blob_name for row in rows}}, no final: {waiting}"
                )
            time.sleep(LOOK_SECONDS)
        assert Counter(row.blob_name for row in rows) == Counter(photos), "a photo was lost or entered twice"
        assert [self.summaries(run.run_id) for run, _ in runs] == [1] * len(runs), "not one summary for each run"
        return rows

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        """Poll until it holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"after {seconds:.0f} s not yet: {what}"
            time.sleep(LOOK_SECONDS)


def link_in(words: str) -> str:
    """The link in what `fusebus supplier grant` prints."""
    return next(line for line in words.splitlines() if line.startswith("http"))


def _quicker(template: str) -> str:
    """The committed settings, with less patience: each replaced value must be there."""
    for section, values in QUICKER.items():
        assert section in tomllib.loads(template)
        for name, value in values.items():
            head, mark, body = template.partition(f"[{section}]\n")
            line = f"{name} = {value}\n"
            body, found = re.subn(rf"(?m)^{name} = .*\n", line, body, count=1)
            template = head + mark + (body if found else line + body)
    return template


def _missing_docker() -> str:
    """What is missing for these tests; empty where Docker answers."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if ended.returncode:
            return f"`{' '.join(command)}` fails: {ended.stderr.strip()[:200]}"
    return ""


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    """Built and up once; taken down with its volumes at the end, whatever happened."""
    if missing := _missing_docker():
        if os.environ.get("CI"):
            pytest.fail(f"containers can't be tested: {missing}")
        pytest.skip(f"containers are not tested here: {missing}")
    made = ComposeStack(tmp_path_factory.mktemp("compose"))
    shutil.rmtree(ARTEFACTS, ignore_errors=True)  # of an earlier session
    try:
        with _limited(LIMIT_SECONDS):
            made.run("deploy/docker/base-images", seconds=BUILD_SECONDS)
            made.compose("build", seconds=BUILD_SECONDS)
            made.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
            _up_or_told_why(made)
            yield made
    finally:
        if request.session.exitstatus == pytest.ExitCode.INTERRUPTED:
            _keep_artefacts(made, "interrupted")
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the logs of a failure at once: a later test may take down the containers that wrote them."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, ComposeStack):
        _keep_artefacts(stack, item.name)
    return report


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Interrupt the session, as Ctrl-C does, when its time is over: logs are still kept, the stack is taken down."""

    def end() -> None:
        timer.finished.set()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        if timer.finished.is_set():  # said here, at the session's end: what is printed before is captured
            print(f"\nnot over after {seconds:.0f} s (COMPOSE_TEST_SECONDS)")
        timer.cancel()


def _up_or_told_why(stack: ComposeStack) -> None:
    """No test has failed yet where a stack does not come up: its logs are kept here, before it is taken down."""
    try:
        stack.up()
    except BaseException:  # pytest's failures are no Exception
        _keep_artefacts(stack, "start")
        raise


def _keep_artefacts(stack: ComposeStack, when: str) -> None:
    """Logs of all containers and their states, for whoever asks why; `when` names their folder."""
    folder = ARTEFACTS / re.sub(r"\W+", "-", when)
    folder.mkdir(parents=True, exist_ok=True)
    logs = stack.compose("logs", "--no-color", "--timestamps", check=False)
    (folder / "logs.txt").write_text(logs, encoding="utf-8")
    (folder / "containers.txt").write_text(stack.compose("ps", "--all", check=False), encoding="utf-8")
    (folder / "mails.txt").write_text("\n".join(_quietly(stack.mails)), encoding="utf-8")
    print(f"\nlogs of the containers: {folder}")


def _quietly(read: Callable[[], list[str]]) -> list[str]:
    try:
        return read()
    except OSError as error:
        return [str(error)]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """A folder of so many new photos, named after its delivery."""
    from delivery_photos import write_photos

    base = tmp_path_factory.mktemp("photos")
    given = 0

    def make(delivery: str, count: int) -> Path:
        nonlocal given
        write_photos(base / delivery, given, count)
        given += count
        return base / delivery

    return make

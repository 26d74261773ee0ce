"""The broker through the unmodified JavaScript SDK; scenarios.mjs has the tests themselves."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.testing import BrokerThread

HERE = Path(__file__).parent
# npm takes a folder behind a link for another package: hence resolve().
CACHE = Path(os.environ.get("FUSEBUS_CACHE", HERE.parents[2] / ".cache" / "fusebus")).resolve()
NODE_MAJOR = 20  # the oldest that the SDK's own requirements and NODE_EXTRA_CA_CERTS are tested with here
INSTALL_SECONDS = 300
RUN_SECONDS = 90
SCENARIOS = re.findall(r'^  async "([^"]+)"', (HERE / "scenarios.mjs").read_text(), re.MULTILINE)


def missing(reason: str) -> None:
    """Skips on a laptop, fails where `CI` is set."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def node() -> str:
    """The path of a node that is new enough, with npm beside it."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        missing("no node and npm on PATH")
    assert found is not None
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < NODE_MAJOR:
        missing(f"node {version.strip()} is older than {NODE_MAJOR}")
    return found


@pytest.fixture(scope="module")
def packages(node: str) -> Path:
    """The folder with the SDK as the lock file pins it: installed once per lock file."""
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = CACHE / f"servicebus-javascript-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "servicebus-javascript.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            unfinished = folder.with_name(folder.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(HERE / name, unfinished / name)
            command = ["npm", "ci", "--prefix", str(unfinished), "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
            if done.returncode:
                missing(f"npm ci failed: {done.stderr[:2000]}")
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="module")
def outcomes(node: str, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str | None]]:
    """What became of each scenario: None, or how it failed."""
    authority = tmp_path_factory.getbasetemp() / "broker-authority"
    with BrokerThread(BrokerOptions(ca_directory=authority)) as broker:
        environment = {
            **os.environ,
            "CONNECTION_STRING": broker.connection_string,
            "NODE_EXTRA_CA_CERTS": str(broker.ca_path),
            "PACKAGES": str(packages),
        }
        done = subprocess.run(
            [node, str(HERE / "scenarios.mjs")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert lines, done.stderr
        yield {line["name"]: line["failure"] for line in lines}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_javascript(outcomes: dict[str, str | None], scenario: str) -> None:
    assert scenario in outcomes, "the process ended before this one did"
    assert outcomes[scenario] is None, outcomes[scenario]

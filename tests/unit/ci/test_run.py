"""Continuous integration runs every tier, or ends with a failure that is told."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OTHERS = ("bash", "cat", "dirname", "mktemp")  # what the script itself calls


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script between programs that only say that they were called; no promtool, and apt that reaches nobody."""
    programs = {
        "make": "[ $2 != ${FAILING:-none} ]",
        "apt-get": "echo 'no route to the mirror' >&2; exit 100",
    }
    for folder in ("bin", ".ci", "deploy/docker"):
        (tmp_path / folder).mkdir(parents=True)
    for name in OTHERS:
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    for path, does in {f"bin/{name}": does for name, does in programs.items()}.items():
        (tmp_path / path).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / path).chmod(0o755)
    (tmp_path / "deploy/docker/install-docker").write_text("#!/bin/sh\n")
    (tmp_path / "deploy/docker/install-docker").chmod(0o755)
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    return tmp_path


def run(checkout: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": str(checkout / "bin"), "TMPDIR": str(checkout), **environment}
    script = str(checkout / ".ci" / "run")
    return subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_tier_of_observability_runs_where_prometheus_can_not_be_installed(checkout: Path) -> None:
    done = run(checkout)
    assert done.returncode == 0, done.stderr
    assert "=== make test-observability\n" in done.stdout
    assert "no route to the mirror" in done.stderr, "and apt says why"
    assert "=== make test-long\n" in done.stdout


def test_a_tier_that_fails_ends_it(checkout: Path) -> None:
    done = run(checkout, FAILING="test-observability")
    assert done.returncode != 0
    assert "=== make test-long\n" not in done.stdout

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

from fusebus.console.__main__ import fusebus

COMMANDS = ("up", "down", "run", "demo", "upload", "status", "check", "ingest")
FLEET_COMMANDS = ("scale", "pause", "resume", "why", "pools", "quota")


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS + FLEET_COMMANDS)
def test_every_command_explains_itself_with_an_example_and_its_exit_codes(name: str) -> None:
    result = CliRunner().invoke(fusebus, [name, "--help"])
    assert result.exit_code == 0
    assert "Example: fusebus" in result.output
    assert "Exit codes:" in result.output


def test_other_packages_bring_their_commands_by_entry_points() -> None:
    assert entry_points(group="fusebus.commands").names == {"up", "down", "run", "demo", "model", "convert"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing", "--out", "results"], "missing does not exist"),
        (["run", "empty", "--out", "results"], "empty holds no files"),
        (["run", "full", "--out", "results", "--supplier", "Not A Name"], "no supplier name"),
        (["run", "full", "--out", "used"], "holds results already"),
        (["run", "full", "--out", "full/a.jpg"], "is a file"),
        (["upload", "missing", "--supplier", "acme"], "missing does not exist"),
        (["run", "full"], "Missing option '--out'"),
        (["ingest", "--since", "yesterday"], "'yesterday' is no time"),
        (["ingest", "--supplier", "Not A Name"], "no supplier name"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_ends_with_exit_code_2_and_says_what_is_wrong(
    in_empty_folder: Path, arguments: list[str], said: str
) -> None:
    for folder in ("empty", "full", "used/json"):
        Path(folder).mkdir(parents=True)
    Path("full/a.jpg").touch()
    result = CliRunner().invoke(fusebus, arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_down_says_that_nothing_is_up(in_empty_folder: Path) -> None:
    result = CliRunner().invoke(fusebus, ["down"])
    assert (result.exit_code, result.output) == (0, "nothing is up here\n")


def test_down_leaves_a_process_alone_that_only_has_the_same_number(in_empty_folder: Path) -> None:
    Path(".fusebus").mkdir()
    Path(".fusebus/up.pid").write_text("1\n12345678901")
    assert CliRunner().invoke(fusebus, ["down"]).output == "nothing is up here\n"


@pytest.mark.parametrize("arguments", [["status"], ["upload", "full", "--supplier", "acme"]], ids=["status", "upload"])
def test_without_a_stack_the_missing_settings_and_the_way_out_are_named(
    in_empty_folder: Path, arguments: list[str]
) -> None:
    Path("full").mkdir()
    Path("full/a.jpg").touch()
    result = subprocess.run(
        [sys.executable, "-m", "fusebus.console", *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "_CONNECTION nor FUSEBUS_" in result.stderr
    assert "fusebus up" in result.stderr
    assert "Traceback" not in result.stderr

"""`fusebus check` as people and scripts use it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from picture_bytes import SECRET, board, exif, saved

from fusebus.console.__main__ import fusebus
from fusebus.validation import Validator, ValidatorUnavailable, Verdict
from fusebus.vision import inspect

PHOTO = saved(board(640, 480), "JPEG", exif=exif(6))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.txt").write_bytes(PHOTO)
    (tmp_path / "cut.jpg").write_bytes(PHOTO[:-500])
    (tmp_path / "notes.jpg").write_bytes(b"Meter reading 48213\n")
    return tmp_path


def test_a_script_gets_one_object_a_file_in_their_order_with_verdict_and_reason() -> None:
    told = CliRunner().invoke(fusebus, ["check", "--json", "cut.jpg", "photo.txt", "notes.jpg", "missing.jpg"])
    objects = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(one["file"], one["verdict"], one["reason"]) for one in objects] == [
        ("cut.jpg", "reject", "damaged"),
        ("photo.txt", "accept", None),
        ("notes.jpg", "reject", "not_an_image"),
        ("missing.jpg", "reject", "unreadable"),
    ]
    assert told.exit_code == 3
    assert (objects[1]["camera"], objects[1]["captured_at"]) == ("Van Cam 3", "2026-03-04T05:06:07+01:00")
    assert all(one["explanation"].endswith(".") for one in objects if one["verdict"] == "reject")


def test_a_derivative_is_upright_named_by_its_digest_and_has_no_metadata(folder: Path) -> None:
    told = CliRunner().invoke(fusebus, ["check", "--json", "--derivative", "out", "photo.txt", "cut.jpg"])
    accepted, rejected = (json.loads(line) for line in told.stdout.splitlines())
    (rebuilt,) = (folder / "out").iterdir()
    assert (accepted["derivative"], rejected.get("derivative")) == (f"out/{rebuilt.name}", None)
    assert rebuilt.stem == hashlib.sha256(PHOTO).hexdigest()
    header = inspect(rebuilt.read_bytes())
    assert (header.width, header.height, header.orientation) == (480, 640, 1)
    assert SECRET[:9] not in rebuilt.read_bytes()
    assert b"Exif" not in rebuilt.read_bytes()


def test_people_read_a_line_a_file_and_scripts_a_code() -> None:
    accepted = CliRunner().invoke(fusebus, ["check", "photo.txt"])
    assert (accepted.exit_code, accepted.stdout) == (0, "accept  photo.txt  jpeg, 640 x 480\n")
    rejected = CliRunner().invoke(fusebus, ["check", "notes.jpg"])
    assert rejected.exit_code == 3
    assert "please send JPEG, PNG or WebP" in rejected.stdout
    assert CliRunner().invoke(fusebus, ["check"]).exit_code == 2


def test_pipes_devices_and_folders_are_told_of_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    files = ["pipe.jpg", "/dev/zero", str(folder)]
    told = CliRunner().invoke(fusebus, ["check", "--json", *files])
    assert [json.loads(line)["reason"] for line in told.stdout.splitlines()] == ["unreadable"] * 3


def test_a_file_above_the_limit_is_refused_unread(folder: Path) -> None:
    with (folder / "large.jpg").open("wb") as large:
        large.truncate(10**12)
    told = CliRunner().invoke(fusebus, ["check", "--json", "large.jpg"])
    assert json.loads(told.stdout)["reason"] == "too_large"


def test_a_warning_is_no_refusal(folder: Path) -> None:
    (folder / "dark.png").write_bytes(saved(np.full((480, 640, 3), 10, np.uint8), "PNG"))
    told = CliRunner().invoke(fusebus, ["check", "dark.png"])
    assert (told.exit_code, told.stdout) == (0, "accept  dark.png  png, 640 x 480; note: dark\n")


def test_it_needs_no_stack_no_settings_and_no_home() -> None:
    command = [str(Path(sys.executable).parent / "fusebus"), "check", "photo.txt"]
    done = subprocess.run(command, env={"PATH": "/usr/bin"}, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_file_without_a_verdict_is_told_and_the_others_get_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    check = Validator.check

    async def sometimes(self: Validator, data: bytes, *, derivative: bool = False) -> Verdict:
        if data == PHOTO[:-500]:
            raise ValidatorUnavailable("no core was free")
        return await check(self, data, derivative=derivative)

    monkeypatch.setattr(Validator, "check", sometimes)
    files = ["cut.jpg", "photo.txt", "notes.jpg"]
    told = CliRunner().invoke(fusebus, ["check", "--json", *files])
    objects = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(one["verdict"], one["reason"]) for one in objects] == [
        (None, "no_verdict"),
        ("accept", None),
        ("reject", "not_an_image"),
    ]
    assert told.exit_code == 4
    assert "no verdict  cut.jpg" in CliRunner().invoke(fusebus, ["check", *files]).stdout

"""`fusebus convert` as a person or a script calls it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from picture_bytes import board, saved

from fusebus.convert.commands import convert_command


def call(*arguments: object) -> Result:
    return CliRunner().invoke(convert_command, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(saved(board(64, 48), "JPEG"))
    (folder / "two.png").write_bytes(saved(board(64, 48), "PNG"))
    return folder


def test_the_exit_code_tells(photos: Path, tmp_path: Path) -> None:
    found = call(photos, tmp_path / "out")
    assert found.exit_code == 0
    assert "2 pictures: 2 converted, 0 unchanged, 0 failed" in found.output
    (photos / "bad\x1b[31m.jpg").write_bytes(b"xx")
    found = call(photos, tmp_path / "out2")
    assert found.exit_code == 4
    assert "control characters (name)" in found.output
    assert "\x1b[31m" not in found.output


def test_json_is_one_object(photos: Path, tmp_path: Path) -> None:
    found = json.loads(call(photos, tmp_path / "out", "--json", "--format", "webp", "--small").stdout)
    assert (found["pictures"], found["converted"], found["failed"]) == (2, 2, [])
    assert found["bytes_out"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())


def test_folders_inside_each_other_are_refused(photos: Path) -> None:
    for source, destination in (
        (photos, photos),
        (photos, photos / "out"),
        (photos, photos.parent),
        ("container:a", "container:a/b"),
        ("container:c/b", "container:c//b"),
        ("container:c//b/", "container:c/b/d"),
        ("container:c/", "container:c"),
    ):
        found = call(source, destination)
        assert (found.exit_code, "lie in each other" in found.output) == (2, True)


def test_a_folder_with_two_paths_is_one_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos.parent / "link").symlink_to(photos)
    assert call(photos, photos.parent / "link" / "out").exit_code == 2
    mounted = photos.parent / "mounted"
    mounted.mkdir()
    sound = Path.samefile
    same = {mounted: photos}
    monkeypatch.setattr(Path, "samefile", lambda one, other: sound(same.get(one, one), same.get(other, other)))
    for source, destination in ((photos, mounted / "out"), (mounted, photos), (photos, mounted)):
        assert call(source, destination).exit_code == 2


@pytest.mark.parametrize(
    "place", ["container:", "container:/b", "container:c/x/../b", "container:c/./b", "container:c\\b"]
)
def test_a_place_that_storage_would_read_as_another_is_refused(photos: Path, place: str) -> None:
    found = call(photos, place)
    assert (found.exit_code, "is no place in storage" in found.output) == (2, True)


def test_a_source_that_is_no_folder_ends_with_1(photos: Path, tmp_path: Path) -> None:
    for source in (tmp_path / "none", photos / "one.jpg"):
        found = call(source, tmp_path / "out")
        assert found.exit_code == 1
        assert "is no folder" in found.output
    assert not (tmp_path / "out").exists()


def test_a_destination_that_can_be_no_folder_ends_with_1(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").write_text("mine")
    for destination in (tmp_path / "file", tmp_path / "circle"):
        found = call(photos, destination)
        assert (found.exit_code, "File exists" in found.output) == (1, True)


def test_the_summary_names_the_record_and_what_was_left_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "link").symlink_to(photos)
    (photos / "notes.txt").write_text("none")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    found = call(photos, ".")
    assert f"record    {tmp_path / 'out.convert.jsonl'}" in found.output
    assert "2 left alone (1 linked folder, 1 other suffix);" in found.output
    plain = json.loads(call(photos, ".", "--json").stdout)
    assert (plain["left_alone"], plain["left_alone_kinds"]) == (2, {"linked_folder": 1, "other_suffix": 1})
    assert plain["record"] == str(tmp_path / "out.convert.jsonl")


AS_SOMEBODY = """
import os, sys
from fusebus.convert.commands import convert_command
try:
    convert_command([sys.argv[1] + "/sub", sys.argv[2] + "-before", "--json"])  # imports what it imports late
except SystemExit:
    print()
os.getuid() or os.setuid(65534)  # root may read all
convert_command([sys.argv[1], sys.argv[2], "--json"])
"""


@pytest.mark.parametrize(("mode", "named"), [(0o000, "closed/"), (0o444, "closed/below.2024/")])
def test_a_folder_that_can_not_be_listed_is_one_failure(mode: int, named: str) -> None:
    with tempfile.TemporaryDirectory() as base:  # pytest's own is closed to others
        photos, out = Path(base, "photos"), Path(base, "out")
        for folder in (photos / "closed" / "below.2024", photos / "sub"):
            folder.mkdir(parents=True)
            (folder / "a.jpg").write_bytes(saved(board(64, 48), "JPEG"))
        out.mkdir()
        for path in (Path(base), out):
            path.chmod(0o777)
        (photos / "closed").chmod(mode)
        done = subprocess.run([sys.executable, "-c", AS_SOMEBODY, photos, out], capture_output=True, check=False)
        (photos / "closed").chmod(0o755)
    assert done.returncode == 4, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["pictures"], found["converted"]) == (2, 1)
    assert found["failed"] == [{"name": named, "reason": "unreadable", "text": "Permission denied"}]


def test_help_has_an_example() -> None:
    found = call("--help")
    assert found.exit_code == 0
    assert "fusebus convert photos png" in found.output
    assert "Exit codes" in found.output
    assert "or with none" in found.output
    assert "200 bytes" in found.output


def test_an_interrupt_ends_it_with_130_and_the_next_call_goes_on(tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    picture = saved(board(800, 600), "JPEG")
    for number in range(60):
        (folder / f"{number}.jpg").write_bytes(picture + bytes([number]))
    code = "from fusebus.convert.commands import convert_command; convert_command()"
    arguments = [sys.executable, "-c", code, str(folder), str(out), "--small", "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=os.environ)
    deadline = time.monotonic() + 60
    while not out.exists() or len(list(out.iterdir())) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    first = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 130
    assert 0 < first["converted"] < 60
    rest = json.loads(call(folder, out, "--small", "--json").stdout)
    assert (rest["converted"], rest["skipped"]) == (60 - first["converted"], first["converted"])
    assert len(list(out.iterdir())) == 60

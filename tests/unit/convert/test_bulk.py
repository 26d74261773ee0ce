"""Folders: everything sound is converted once, what failed is told, and a second call does only what is left."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picture_bytes import board, saved

from fusebus.convert import Format, Target
from fusebus.convert.bulk import Options, Report, convert_all
from fusebus.convert.commands import report_json
from fusebus.convert.memory import Bench, Gate
from fusebus.convert.places import Folder, LeftAlone
from fusebus.convert.record import Entry, FileRecord, RecordBusy, line_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five sound pictures, one damaged, one text."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number in range(5):
        (folder / "sub" / f"{number}.jpg").write_bytes(saved(board(64, 48, number), "JPEG"))
    (folder / "damaged.jpg").write_bytes(saved(board(64, 48), "JPEG")[:-50])
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(source: Path, destination: Path, stop: threading.Event | None = None, **options: Any) -> Report:
    return convert_all(Folder(source), Folder(destination), Options(workers=2, **options), stop or threading.Event())


def counts(report: Report) -> tuple[int, int, int]:
    return report.converted, report.skipped, len(report.failures)


def test_all_are_converted_but_the_damaged_one_and_originals_stay(photos: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    report = run(photos, tmp_path / "out")
    assert counts(report) == (5, 0, 1)
    assert (report.total, report.left_alone) == (6, {LeftAlone.OTHER_SUFFIX: 1})
    assert [(one.source, one.failed) for one in report.failures] == [("damaged.jpg", "damaged")]
    made = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert made == {f"sub/{number}.png" for number in range(5)}
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before
    assert (tmp_path / "out.convert.jsonl").is_file()


def test_a_second_call_does_only_what_is_new_changed_missing_or_spoilt(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(photos, out)
    assert counts(run(photos, out)) == (0, 5, 1)
    (photos / "sub" / "0.jpg").write_bytes(saved(board(64, 48, 50), "JPEG"))
    (out / "sub" / "1.png").unlink()
    (out / "sub" / "2.png").write_bytes(b"spoilt")
    (photos / "new.png").write_bytes(saved(board(64, 48, 51), "PNG"))
    (photos / "damaged.jpg").write_bytes(saved(board(64, 48, 52), "JPEG"))
    report = run(photos, out)
    assert [(one.source, one.failed) for one in report.failures] == [("sub/2.jpg", "exists")]
    assert counts(report) == (4, 2, 1)
    assert counts(run(photos, out, replace=True)) == (1, 6, 0)
    assert counts(run(photos, out)) == (0, 7, 0)


def test_a_touched_file_of_the_same_content_is_not_converted_again(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    for path in photos.rglob("*.jpg"):
        path.touch()
    assert counts(run(photos, tmp_path / "out")) == (0, 5, 1)


def test_another_target_is_converted_beside_and_small_takes_the_place(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(photos, out)
    assert counts(run(photos, out, target=Target(format=Format.WEBP))) == (5, 0, 1)
    assert len(list(out.rglob("*.webp"))) == len(list(out.rglob("*.png"))) == 5
    assert counts(run(photos, out)) == (5, 0, 1)  # the record keeps the last target of each source
    assert counts(run(photos, out, target=Target(small=True))) == (5, 0, 1)


def test_results_of_another_format_stay_known_as_ours(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(photos, out)
    run(photos, out, target=Target(format=Format.WEBP))
    (photos / "sub" / "0.jpg").write_bytes(saved(board(64, 48, 50), "JPEG"))
    (out / "sub" / "1.png").write_text("mine")
    report = run(photos, out)
    assert counts(report) == (4, 0, 2)
    assert [(one.source, one.failed) for one in report.failures] == [
        ("damaged.jpg", "damaged"),
        ("sub/1.jpg", "exists"),
    ]
    (photos / "sub" / "0.jpg").write_bytes(saved(board(64, 48, 51), "JPEG"))
    assert counts(run(photos, out, target=Target(format=Format.WEBP))) == (5, 0, 1)
    assert (out / "sub" / "1.png").read_text() == "mine"


def test_a_stranger_s_file_is_not_overwritten_unless_asked(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "0.png").write_text("mine")
    report = run(photos, out)
    assert [one.failed for one in report.failures] == ["damaged", "exists"]
    assert (out / "sub" / "0.png").read_text() == "mine"
    assert counts(run(photos, out, replace=True)) == (1, 4, 1)


def test_what_a_crash_left_unrecorded_is_taken_as_done(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    (tmp_path / "out.convert.jsonl").unlink()
    assert counts(run(photos, tmp_path / "out")) == (5, 0, 1)


def test_a_torn_last_line_costs_one_picture(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    record = tmp_path / "out.convert.jsonl"
    lines = [line for line in record.read_bytes().splitlines(keepends=True) if b"failed" not in line]
    record.write_bytes(b"".join(lines)[:-20])
    assert counts(run(photos, tmp_path / "out")) == (1, 4, 1)
    assert counts(run(photos, tmp_path / "out")) == (0, 5, 1)


def test_a_later_failure_does_not_forget_that_the_result_is_ours(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    path = photos / "sub" / "0.jpg"
    path.write_bytes(b"spoilt")
    assert counts(run(photos, tmp_path / "out")) == (0, 4, 2)
    path.write_bytes(saved(board(64, 48, 70), "JPEG"))
    assert counts(run(photos, tmp_path / "out")) == (1, 4, 1)


def test_a_stop_ends_it_and_a_later_call_goes_on(photos: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    report = convert_all(
        Folder(photos),
        Folder(tmp_path / "out"),
        Options(workers=1),
        stop,
        lambda total, outcome: stop.set(),
    )
    assert report.interrupted
    rest = run(photos, tmp_path / "out")
    assert rest.skipped + rest.converted == 5
    assert len(list((tmp_path / "out").rglob("*.png"))) == 5


def test_two_at_the_same_folder_are_one_too_many(photos: Path, tmp_path: Path) -> None:
    first = FileRecord(tmp_path / "out")
    first.load()
    with pytest.raises(RecordBusy):
        run(photos, tmp_path / "out")
    first.close()


def test_a_folder_that_can_not_be_written_fails_each_picture_with_the_reason(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sub").write_text("a file in the way")
    report = run(photos, out)
    assert {one.failed for one in report.failures} == {"unwritable", "damaged"}


def test_a_fault_of_our_own_costs_its_picture_only(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusebus.convert import bulk

    sound = bulk.convert

    def faulty(data: bytes, *rest: Any) -> Any:
        if data == (photos / "sub" / "3.jpg").read_bytes():
            raise ZeroDivisionError("a fault")
        return sound(data, *rest)

    monkeypatch.setattr(bulk, "convert", faulty)
    report = run(photos, tmp_path / "out")
    assert [(one.source, one.failed) for one in report.failures] == [
        ("damaged.jpg", "damaged"),
        ("sub/3.jpg", "internal"),
    ]
    assert report.converted == 4


def test_an_entry_survives_its_line(tmp_path: Path) -> None:
    record = FileRecord(tmp_path / "out")
    record.load()
    entry = Entry(source="Zähler \u202e.jpg", failed="damaged", text="a\nb", earlier={"Zähler.webp": ("ab", "0x1")})
    record.append(entry)
    record.close()
    assert (tmp_path / "out.convert.jsonl").read_bytes() == line_of(entry)
    assert FileRecord(tmp_path / "out").load() == {("", entry.source): entry}


def test_a_gate_never_holds_more_than_its_limit_and_lets_a_giant_through_alone() -> None:
    gate, held, most = Gate(100), [0], [0]
    lock = threading.Lock()

    def one(size: int) -> None:
        with gate.room(size):
            with lock:
                held[0] += min(size, 100)
                most[0] = max(most[0], held[0])
            time.sleep(0.002)
            with lock:
                held[0] -= min(size, 100)

    threads = [threading.Thread(target=one, args=(size,)) for size in [30, 40, 50, 1_000, 60, 10] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert most[0] <= 100


def test_a_bench_has_as_many_cores_as_it_was_given() -> None:
    bench = Bench(1, 1 << 20)
    taken: list[str] = []

    def second() -> None:
        with bench.core():
            taken.append("second")

    thread = threading.Thread(target=second)
    with bench.core():
        thread.start()
        thread.join(0.05)
        taken.append("first")
    thread.join(10)
    assert taken == ["first", "second"]


@pytest.mark.long
def test_five_hundred_pictures_with_a_failure_in_each_hundred(
    tmp_path: Path, resident_megabytes: Callable[[], float]
) -> None:
    photos, kinds = tmp_path / "photos", ["JPEG", "PNG", "WEBP", "TIFF"]
    photos.mkdir()
    sound = [
        saved(board(640, 480, seed), kinds[seed % 4], **({"lossless": True} if seed % 4 == 2 else {}))
        for seed in range(20)
    ]
    for number in range(500):
        data = sound[number % 20]
        bad = number % 100 == 57
        (photos / f"{number:03}.{kinds[number % 4].lower()}").write_bytes(data[: len(data) // 2] if bad else data)
    half = threading.Event()
    seen: list[float] = []

    def told(total: int, outcome: object) -> None:
        seen.append(resident_megabytes())
        if len(seen) == 250:
            half.set()

    first = convert_all(Folder(photos), Folder(tmp_path / "out"), Options(workers=2), half, told)
    assert first.interrupted
    report = convert_all(Folder(photos), Folder(tmp_path / "out"), Options(workers=2), threading.Event(), told)
    assert report.skipped + report.converted == 495
    assert report.skipped == first.converted
    assert {one.failed for one in report.failures} == {"damaged"}
    assert [one.source[:3] for one in report.failures] == ["057", "157", "257", "357", "457"]
    assert max(seen[100:]) < 1.25 * max(seen[50:100])


def test_two_sources_with_the_same_names_do_not_overwrite_each_other(photos: Path, tmp_path: Path) -> None:
    other, out = tmp_path / "other", tmp_path / "out"
    (other / "sub").mkdir(parents=True)
    (other / "sub" / "0.jpg").write_bytes(saved(board(64, 48, 60), "JPEG"))
    run(photos, out)
    first = (out / "sub" / "0.png").read_bytes()
    report = run(other, out)
    assert [(one.source, one.failed) for one in report.failures] == [("sub/0.jpg", "exists")]
    assert (out / "sub" / "0.png").read_bytes() == first
    assert counts(run(photos, out)) == (0, 5, 1)  # what was done for the first is known still


def test_a_name_in_another_encoding_fails_alone(photos: Path, tmp_path: Path) -> None:
    (photos / os.fsdecode(b"Z\xe4hler.jpg")).write_bytes(saved(board(64, 48), "JPEG"))
    report = run(photos, tmp_path / "out")
    assert counts(report) == (5, 0, 2)
    assert [(one.source, one.failed) for one in report.failures] == [
        ("Z\\udce4hler.jpg", "name"),
        ("damaged.jpg", "damaged"),
    ]
    assert json.loads(report_json(report))["failed"][0]["text"] == "its name is not UTF-8"


def add(photos: Path, name: str, seed: int) -> None:
    """One more picture, of the kind that its name says."""
    kind = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".webp": "WEBP"}[Path(name).suffix]
    (photos / name).parent.mkdir(parents=True, exist_ok=True)
    (photos / name).write_bytes(saved(board(64, 48, seed), kind))


@pytest.mark.parametrize(("later", "becomes"), [("b.png", "b.png.png"), ("b.tif", "b.tif.png"), ("B.jpg", "B.jpg.png")])
def test_a_name_stays_with_who_has_it_and_a_later_arrival_keeps_its_suffix(
    tmp_path: Path, later: str, becomes: str
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    add(photos, "b.jpg", 1)
    run(photos, out)
    first = (out / "b.png").read_bytes()
    add(photos, later, 2)
    assert counts(run(photos, out)) == (1, 1, 0)
    assert counts(run(photos, out)) == (0, 2, 0)
    assert {path.name for path in out.iterdir()} == {"b.png", becomes}
    assert (out / "b.png").read_bytes() == first
    assert counts(run(photos, out, target=Target(format=Format.WEBP))) == (2, 0, 0)
    assert counts(run(photos, out)) == (2, 0, 0)
    assert len(list(out.iterdir())) == 4, "two of each format: names stay across formats"


def test_the_result_of_a_picture_that_is_gone_is_kept(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    add(photos, "b.jpg", 1)
    run(photos, out)
    first = (out / "b.png").read_bytes()
    (photos / "b.jpg").unlink()
    add(photos, "b.png", 2)
    assert counts(run(photos, out)) == (1, 0, 0)
    assert (out / "b.png").read_bytes() == first
    assert (out / "b.png.png").is_file()


def test_an_interruption_plays_no_part_in_names(tmp_path: Path) -> None:
    photos, out, stop = tmp_path / "photos", tmp_path / "out", threading.Event()
    for number, name in enumerate(("b.jpg", "b.tif", "b.png")):
        add(photos, name, number)
    first = convert_all(Folder(photos), Folder(out), Options(), stop, lambda total, outcome: stop.set())
    assert first.converted <= 3
    run(photos, out)
    assert {path.name for path in out.iterdir()} == {"b.jpg.png", "b.tif.png", "b.png"}


def test_a_link_at_the_destination_never_leads_to_the_originals(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    add(photos, "k/b.jpg", 1)
    add(photos, "deep/k/b.png", 2)
    before = (photos / "deep" / "k" / "b.png").read_bytes()
    out.mkdir()
    (out / "k").symlink_to(photos / "deep" / "k")
    report = run(photos, out, replace=True)
    assert [(one.source, one.failed) for one in report.failures] == [("k/b.jpg", "unwritable")]
    assert "leads out of" in report.failures[0].text
    (out / "k").unlink()
    (out / "k").symlink_to(photos / "deep" / "new")
    assert counts(run(photos, out, replace=True)) == (0, 1, 1)
    assert not (photos / "deep" / "new").exists()
    (out / "k").unlink()
    (out / "k").symlink_to("k")
    assert [one.failed for one in run(photos, out, replace=True).failures] == ["unwritable"]
    (out / "k").unlink()
    (out / "k").mkdir()
    (out / "k" / "b.png").symlink_to(photos / "deep" / "k" / "b.png")
    assert counts(run(photos, out)) == (0, 1, 1), "a link is a stranger's file"
    assert counts(run(photos, out, replace=True)) == (1, 1, 0)
    assert (photos / "deep" / "k" / "b.png").read_bytes() == before


def test_what_is_no_file_at_the_destination_is_not_overwritten(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    add(photos, "a.jpg", 1)
    add(photos, "b.jpg", 2)
    out.mkdir()
    (out / "a.png").symlink_to("nowhere")
    os.mkfifo(out / "b.png")
    assert [one.failed for one in run(photos, out).failures] == ["exists", "exists"]


@pytest.mark.parametrize("spelled", [".", "../photos/../out", "../link"])
def test_the_record_and_its_lock_are_those_of_the_folder_however_it_is_spelled(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    out = tmp_path / "out"
    report = run(photos, out)
    assert report.record == str(tmp_path / "out.convert.jsonl")
    (tmp_path / "link").symlink_to(out)
    monkeypatch.chdir(out)
    again = run(photos, Path(spelled))
    assert (counts(again), again.record) == ((0, 5, 1), report.record)
    assert [path.name for path in tmp_path.rglob("*.jsonl")] == ["out.convert.jsonl"]
    first = FileRecord(out)
    first.load()
    with pytest.raises(RecordBusy):
        run(photos, Path(spelled))
    first.close()


def test_what_is_no_picture_is_left_alone_and_counted_by_what_it_is(photos: Path, tmp_path: Path) -> None:
    (photos / "folder.jpg").symlink_to(photos / "sub")
    (photos / "circle").symlink_to(photos)
    (photos / "dangling.jpg").symlink_to("nowhere")
    (photos / "itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(photos / "fifo.jpg")
    (photos / ".git").mkdir()
    (photos / "linked.jpg").symlink_to(photos / "sub" / "0.jpg")
    report = run(photos, tmp_path / "out")
    assert counts(report) == (6, 0, 1)
    assert report.left_alone == {
        LeftAlone.OTHER_SUFFIX: 1,
        LeftAlone.LINKED_FOLDER: 2,
        LeftAlone.DANGLING_LINK: 2,
        LeftAlone.SPECIAL_FILE: 1,
        LeftAlone.HIDDEN: 1,
    }

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.comparison import run_lengths
from fusebus.inferencer.comparison.commands import compare_models
from fusebus.inferencer.comparison.comparing import Version, compare
from fusebus.inferencer.comparison.figures import compared, figures, largest
from fusebus.inferencer.comparison.matching import match
from fusebus.inferencer.comparison.photos import Photo
from fusebus.inferencer.comparison.sheet import Picture, render, verdict
from fusebus.inferencer.result import ResultDetection
from fusebus.models import describe_file, load_manifest, write_manifest
from fusebus.vision import DEMO_MODEL, encode_jpeg, rle
from fusebus.vision.boards import draw_board


def found(x: int, y: int, edge: int = 20, score: float = 0.8, label: str = "fuse neutral", size: int = 100) -> Any:
    """A square, in a picture of 100 × 100 pixels with a mask of `size` × `size` cells."""
    mask, factor = np.zeros((size, size), np.uint8), size // 100
    mask[y * factor : (y + edge) * factor, x * factor : (x + edge) * factor] = 1
    return ResultDetection(
        label=label, score=score, box=(float(x), float(y), float(x + edge), float(y + edge)), mask=rle.encode(mask)
    )


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_run_lengths_are_read_back_as_pycocotools_does(mask: np.ndarray) -> None:
    written = rle.encode(mask)
    assert np.array_equal(run_lengths.decode(written), mask)
    assert np.array_equal(coco.decode(written), mask)


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [10, 10], "counts": "0"},
        {"size": [100_000, 100_000], "counts": "0"},
        {"size": [0, 10], "counts": "0"},
        {"size": [10, 10], "counts": "oooooooooooo0"},
    ],
)
def test_what_is_no_mask_is_an_error(mask: Any) -> None:
    with pytest.raises(ValueError, match=r"runs that|a mask of"):
        run_lengths.decode(mask)


def test_things_are_paired_by_overlap_the_best_first_and_each_once() -> None:
    first = [found(0, 0), found(50, 50)]
    second = [found(52, 50), found(2, 0), found(51, 50), found(0, 60)]
    matched = match(first, second)
    assert [(pair.first, pair.second) for pair in matched.pairs] == [(1, 2), (0, 1)]
    assert matched.pairs[0].iou == pytest.approx(19 / 21)
    assert (matched.only_first, matched.only_second) == ((), (0, 3))


def test_things_of_another_label_are_not_the_same() -> None:
    matched = match([found(0, 0)], [found(0, 0, label="screw")])
    assert (matched.pairs, matched.only_first, matched.only_second) == ((), (0,), (0,))


def test_masks_of_models_with_other_sizes_are_compared() -> None:
    assert match([found(10, 10)], [found(10, 10, size=200)]).pairs[0].iou == 1.0


def test_figures_say_who_found_what_and_how_fast() -> None:
    photos = [
        compared("a", ((found(0, 0, score=0.9),), 0.010), ((found(0, 0, score=0.7),), 0.020)),
        compared("b", ((), 0.012), ((found(5, 5, score=0.55), found(50, 50)), 0.030)),
        compared("c", ((), 0.014), ((), None)),
    ]
    made = figures(("m@1", "m@2"), photos, 2, {"d": "damaged"})
    assert (made.photos, made.same_count, made.matched, made.only_first, made.only_second) == (3, 2, 1, 0, 2)
    assert (made.agreement, made.mean_iou, made.mean_score_change) == (0.3333, 1.0, -0.2)
    assert made.first.milliseconds == {"mean": 12.0, "p50": 12.0, "p95": 13.8}
    assert (made.second.detections, made.second.photos_without, made.second.stored) == (3, 1, 1)
    assert sum(made.second.score_histogram) == 3
    assert made.largest == (("b", 1.35),), "photos that agree are not shown"
    assert [photo.name for photo in largest(photos, 9)] == ["b"]
    assert (made.timed, made.second_faster, made.speed_ratio) == (2, 0, 0.45)
    assert "Neither is faster for certain (2 photos" in verdict(made), "two photos prove nothing"


def test_a_version_is_called_faster_only_where_most_photos_say_so() -> None:
    def said(*pairs: tuple[float, float]) -> str:
        same = (found(0, 0),)
        photos = [compared(str(n), (same, first), (same, second)) for n, (first, second) in enumerate(pairs)]
        return verdict(figures(("m@1", "m@2"), photos, 0, {}))

    assert "m@2 is 2.00 times as fast as m@1" in said(*[(0.02, 0.01)] * 9)
    assert "m@1 is 2.00 times as fast as m@2" in said(*[(0.01, 0.02)] * 9)
    assert "Neither is faster" in said(*[(0.03, 0.01), (0.01, 0.03)] * 5)
    assert "Neither is faster" in said(*[(0.0101, 0.01)] * 50), "one per cent is not worth a word"


def test_nothing_found_at_all_is_said_so() -> None:
    made = figures(("m@1", "m@2"), [compared("a", ((), None), ((), None))], 5, {})
    assert (made.agreement, made.first.score_quantiles, made.first.milliseconds) == (None, None, None)
    assert "Neither found anything" in verdict(made)
    assert b"None: both found the same" in render(made, [])


def test_names_on_the_page_are_data() -> None:
    photo = compared("<script>alert(1)</script>", ((), 0.1), ((found(0, 0),), 0.1))
    made = figures(("m@1", "m@2"), [photo], 5, {'"><img src=x onerror=alert(1)>': "damaged"})
    page = render(made, [Picture("pictures/disagreement-001.jpg", photo.name, "")]).decode()
    assert "<script" not in page
    assert "onerror=alert(1)>" not in page.replace("&#34;&gt;&lt;img src=x onerror=alert(1)&gt;", "")


class Counting:
    """Finds nothing, and writes down who was asked."""

    def __init__(self, name: str, asked: list[str]) -> None:
        self._name, self._asked = name, asked

    def run(self, images: np.ndarray) -> Outputs:
        self._asked.append(self._name)
        manifest = load_manifest(DEMO_MODEL)
        most, edge = manifest.top_k, manifest.mask_size
        scores, boxes = np.zeros((1, most), np.float32), np.zeros((1, most, 4), np.float32)
        return Outputs(scores, boxes, np.zeros((1, most, edge, edge), np.uint8), np.zeros((1, most), np.int64))


@pytest.fixture
def photos(photo: bytes) -> list[Photo]:
    """Four photos; the first version's result of the second one is stored."""

    def made(number: int) -> Photo:
        async def read() -> bytes:
            return photo if number != 3 else photo[:100]

        async def stored(ref: str) -> tuple[ResultDetection, ...] | None:
            return (found(0, 0),) if number == 1 and ref.endswith("@1") else None

        return Photo(name=str(number), read=read, stored=stored)

    return [made(number) for number in range(4)]


def versions(asked: list[str]) -> tuple[Version, Version]:
    manifest = load_manifest(DEMO_MODEL)

    def made(name: str) -> Version:
        return Version(
            manifest=msgspec.structs.replace(manifest, version=name), open_backend=lambda: Counting(name, asked)
        )

    return made("1"), made("2")


async def test_the_versions_take_turns_in_going_first(photos: Sequence[Photo]) -> None:
    asked: list[str] = []
    done = await compare(versions(asked), photos, use_stored=False)
    assert [name for name in asked if name] == ["1"] * 4 + ["2"] * 4 + ["2", "1", "1", "2"]  # warm-ups first
    assert [photo.name for photo in done.photos] == ["0", "1", "2"]
    assert done.skipped.keys() == {"3"}


async def test_a_stored_result_is_taken_and_its_model_not_asked(photos: Sequence[Photo]) -> None:
    asked: list[str] = []
    done = await compare(versions(asked), photos[1:2], use_stored=True)
    assert set(asked) == {"2"}
    assert (done.photos[0].first_seconds, len(done.photos[0].first)) == (None, 1)
    assert done.photos[0].second_seconds is not None


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The demo model as another version that sees less."""
    folder, manifest = tmp_path / "other", load_manifest(DEMO_MODEL)
    folder.mkdir()
    graph = onnx.load(DEMO_MODEL / manifest.file)
    graph.doc_string = "other"
    onnx.save(graph, folder / manifest.file)
    files = {manifest.file: describe_file(folder / manifest.file)}
    write_manifest(folder, msgspec.structs.replace(manifest, version="other", files=files, score_thresholds=(0.8,)))
    return folder


def test_the_command_compares_two_folders_on_a_folder_of_photos(model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(4):
        (photos / f"board {seed}.jpg").write_bytes(encode_jpeg(draw_board(seed, (800, 600)).image))
    (photos / "notes.txt").write_text("hello")
    out = tmp_path / "out"
    ran = CliRunner().invoke(
        compare_models, [str(DEMO_MODEL), str(model), "--photos", str(photos), "--out", str(out), "--json"]
    )
    assert ran.exit_code == 0, ran.output
    made = msgspec.json.decode(ran.stdout)
    assert made == msgspec.json.decode((out / "compare.json").read_bytes())
    assert (made["photos"], list(made["skipped"])) == (4, ["notes.txt"])
    assert made["first"]["detections"] >= made["second"]["detections"] > 0
    assert made["only_second"] == 0
    assert made["mean_iou"] == 1.0, "the same graph finds the same"
    pictures = sorted(path.name for path in (out / "pictures").iterdir())
    assert len(pictures) == len(made["largest"])
    page = (out / "index.html").read_text()
    assert all(name in page for name in pictures)


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    runner = CliRunner()
    assert "name either --run or --photos" in runner.invoke(compare_models, ["a", "b"]).output
    wrong = runner.invoke(compare_models, ["a", "b", "--photos", str(tmp_path), "--stored"])
    assert (wrong.exit_code, "--stored goes with --run" in wrong.output) == (2, True)
    empty = runner.invoke(compare_models, ["a", "b", "--photos", str(tmp_path)])
    assert (empty.exit_code, "holds no files" in empty.output) == (1, True)


def test_the_command_refuses_a_folder_that_is_no_model(tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "board.jpg").write_bytes(photo)
    ran = CliRunner().invoke(compare_models, [str(tmp_path), str(tmp_path), "--photos", str(tmp_path)])
    assert (ran.exit_code, "manifest.json" in ran.output) == (1, True)

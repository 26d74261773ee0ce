"""COCO folders: polygons and run lengths in, the same masks out; and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fusebus.vision import encode_jpeg
from fusebus.vision.export.coco import DataError, Instance, Sample, read_coco, run_lengths, write_coco

WIDTH, HEIGHT = 40, 30
SQUARE = np.zeros((HEIGHT, WIDTH), np.bool_)
SQUARE[5:15, 10:20] = True
RUNS = run_lengths(SQUARE, (10, 5, 20, 15))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)))
    return tmp_path


def annotate(folder: Path, segmentation: Any, name: str = "annotations.json", **image: Any) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, **image}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "segmentation": segmentation}],
        "categories": [{"id": 3, "name": "Fuse Neutral"}],
    }
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    "segmentation",
    [
        [[10, 5, 20, 5, 20, 15, 10, 15]],
        {"size": [HEIGHT, WIDTH], "counts": RUNS["counts"].decode()},
        {"size": [HEIGHT, WIDTH], "counts": [305, *[10, 20] * 9, 10, 615]},
    ],
    ids=["polygon", "compressed", "plain"],
)
def test_polygons_and_run_lengths_give_the_same_mask(folder: Path, segmentation: Any) -> None:
    annotate(folder, segmentation)
    (sample,) = read_coco(folder).samples
    (instance,) = sample.instances
    np.testing.assert_array_equal(coco_mask.decode(instance.mask) == 1, SQUARE)
    assert sample.read().shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("name", ["_annotations.coco.json", "annotations/instances_default.json", "anything.json"])
def test_annotations_are_found_where_tools_put_them(folder: Path, name: str) -> None:
    annotate(folder, [[10, 5, 20, 5, 20, 15]], name)
    assert len(read_coco(folder).samples) == 1


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    data = encode_jpeg(np.full((HEIGHT, WIDTH, 3), 30, np.uint8))
    write_coco(tmp_path / "out", [Sample("b.jpg", WIDTH, HEIGHT, (Instance(1, RUNS),), data=data)], {1: "fuse neutral"})
    found = read_coco(tmp_path / "out")
    assert found.samples[0].instances == (Instance(1, RUNS),)
    assert found.samples[0].file() == data


def test_a_prompt_is_a_category_whatever_its_case_or_the_only_one(folder: Path) -> None:
    annotate(folder, [[10, 5, 20, 5, 20, 15]])
    assert read_coco(folder).category_of("fuse neutral") == 3
    assert read_coco(folder).category_of("anything") == 3


@pytest.mark.parametrize(
    ("segmentation", "image", "reason"),
    [
        ([], {}, "has no segmentation"),
        (None, {}, "has no segmentation"),
        ([[1, 2, 3, 4]], {}, "fewer than three points"),
        ({"size": [3, 3], "counts": "09"}, {}, "another size"),
        ([[1, 1, 5, 5, 1, 5]], {"file_name": "b.jpg"}, "no such picture"),
        ([[1, 1, 5, 5, 1, 5]], {"file_name": "../a.jpg"}, "no such picture|lies outside"),
        ([[1, 1, 5, 5, 1, 5]], {"width": "wide"}, "not COCO's format"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(
    folder: Path, segmentation: Any, image: dict[str, Any], reason: str
) -> None:
    (folder.parent / "a.jpg").write_bytes(b"")
    annotate(folder, segmentation, **image)
    with pytest.raises(DataError, match=reason):
        read_coco(folder)


def test_a_picture_of_another_size_than_its_annotations_is_refused(folder: Path) -> None:
    annotate(folder, [[1, 1, 5, 5, 1, 5]], width=HEIGHT, height=WIDTH)
    with pytest.raises(DataError, match="rotate the file itself"):
        read_coco(folder).samples[0].read()


def test_a_folder_without_annotations_says_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no JSON file; put the annotations there as annotations\.json"):
        read_coco(tmp_path)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from fusebus.vision import rle
from fusebus.vision.masks import enlarge, outlines, region_of


def reference(mask: np.ndarray) -> dict[str, object]:
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode("ascii")}


@settings(max_examples=400, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_run_lengths_are_byte_identical_to_pycocotools(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert rle.encode(mask) == reference(mask)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_run_lengths_from_inside_a_box_are_those_of_the_whole_mask(
    data: st.DataObject, height: int, width: int, seed: int
) -> None:
    x0, y0 = data.draw(st.integers(0, width)), data.draw(st.integers(0, height))
    x1, y1 = data.draw(st.integers(x0, width)), data.draw(st.integers(y0, height))
    mask = np.zeros((height, width), np.bool_)
    mask[y0:y1, x0:x1] = np.random.default_rng(seed).random((y1 - y0, x1 - x0)) < 0.7
    assert rle.encode(mask, (x0, y0, x1, y1)) == reference(mask)


def test_run_lengths_of_a_large_mask_need_more_than_two_characters() -> None:
    mask = np.zeros((4_000, 3_000), np.uint8)
    mask[3_999, 2_999] = mask[5, 1_500] = 1
    assert rle.encode(mask) == reference(mask)
    assert coco.decode(dict(rle.encode(mask))).sum() == 2


def ellipse(rows: int = 64, columns: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns] + 0.5
    distance = ((x - 32) / 16) ** 2 + ((y - 24) / 10) ** 2
    return (np.clip(1.5 - distance, 0, 1) * 255).astype(np.uint8)


def test_a_mask_is_enlarged_in_place_and_only_in_its_region() -> None:
    whole = enlarge(ellipse(), (0, 0, 640, 320), 640, 320)
    assert whole.shape == (320, 640)
    rows, columns = np.nonzero(whole)
    assert rows.mean() == pytest.approx(24 * 5 - 0.5, abs=0.6)
    assert columns.mean() == pytest.approx(32 * 10 - 0.5, abs=0.6)
    part = enlarge(ellipse(), (200, 60, 333, 177), 640, 320)
    assert (part != whole[60:177, 200:333]).mean() < 1e-3  # interpolation rounds to 1/32 of a cell


def test_an_outline_runs_along_the_mask_at_any_size_of_picture() -> None:
    import cv2

    for width, height in ((64, 64), (640, 320), (6_400, 3_200)):
        box = (16 * width / 64, 14 * height / 64, 48 * width / 64, 34 * height / 64)
        (polygon,) = outlines(ellipse(), box, width, height)
        filled = np.zeros((height, width), np.uint8)
        cv2.fillPoly(filled, [polygon], 1)
        inside = enlarge(ellipse(), (0, 0, width, height), width, height)
        assert (filled & inside).sum() / (filled | inside).sum() > 0.97


def test_what_lies_outside_the_box_or_is_tiny_has_no_outline() -> None:
    mask = ellipse()
    mask[60, 60] = mask[20, 17] = 255  # far away, and a small island within the box
    assert len(outlines(mask, (160, 140, 480, 340), 640, 640)) == 1
    assert outlines(np.zeros((64, 64), np.uint8), (0, 0, 640, 640), 640, 640) == ()


def test_a_region_is_the_box_with_a_margin_inside_the_picture() -> None:
    assert region_of((10, 20, 110, 220), 1_000, 1_000) == (6, 12, 114, 228)
    assert region_of((0, 0, 100, 50), 100, 50) == (0, 0, 100, 50)
    assert region_of((50, 50, 50, 50), 100, 100) == (50, 50, 50, 50)

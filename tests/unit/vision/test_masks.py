import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from fusebus.vision import masks, rle
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


def structured(kind: str, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    match kind:
        case "full":
            mask[:] = 1
        case "first pixel":
            mask[0, 0] = 1
        case "last pixel":
            mask[-1, -1] = 255  # anything but 0 is inside
        case "a whole column":
            mask[:, width // 2] = 1
        case "first and last column":
            mask[:, [0, -1]] = 1
        case "whole columns with a hole":
            mask[:, width // 3 :] = 1
            mask[height // 2, width // 2] = 0
        case "rows":
            mask[::2] = 1
        case "chequers":
            mask[::2, ::2] = mask[1::2, 1::2] = 1
        case "bottom and next top":
            mask[-1, ::2] = mask[0, 1::2] = 1
    return mask


KINDS = [
    "empty",
    "full",
    "first pixel",
    "last pixel",
    "a whole column",
    "first and last column",
    "whole columns with a hole",
    "rows",
    "chequers",
    "bottom and next top",
]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 2), (7, 5), (1008, 1008), (40, 2000), (2000, 40)])
@pytest.mark.parametrize("kind", KINDS)
def test_run_lengths_of_masks_with_structure_are_pycocotools_too(kind: str, size: tuple[int, int]) -> None:
    mask = structured(kind, *size)
    assert rle.encode(mask) == reference(mask)
    assert rle.encode(mask.astype(bool)) == reference(mask)
    assert rle.encode(np.asfortranarray(mask)) == reference(mask)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=12), st.booleans())
def test_runs_of_every_length_have_pycocotools_text(runs: list[int], starts_inside: bool) -> None:
    values = np.arange(len(runs)) % 2 == (0 if starts_inside else 1)
    mask = np.repeat(values, runs)[:, None].astype(np.uint8)
    assert rle.encode(mask) == reference(mask)


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


def interpolated(logits: np.ndarray, width: int, height: int) -> np.ndarray:
    """Full-frame bilinear interpolation in float64, half-pixel centres, edges repeated: what the native model does."""

    def weights(cells: int, pixels: int) -> np.ndarray:
        at = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
        below = np.minimum(at.astype(int), max(0, cells - 2))
        out = np.zeros((pixels, cells))
        np.add.at(out, (np.arange(pixels), below), 1 - (at - below))
        np.add.at(out, (np.arange(pixels), np.minimum(below + 1, cells - 1)), at - below)
        return out

    return weights(logits.shape[0], height) @ logits.astype(np.float64) @ weights(logits.shape[1], width).T


def sharp_logits(seed: int) -> np.ndarray:
    """As of a trained model: a third of the cells beyond ±6, slopes along the edges."""
    smooth = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (72, 72)), (0, 0), 4)
    return smooth / smooth.std() * 6


SIZES = [(252, 252), (288, 144), (640, 480), (72, 72), (100, 30), (251, 307)]  # the last ones share no lattice


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shares", [(0, 0, 1, 1), (0.2, 0.3, 0.55, 0.71), (0.9, 0, 1, 0.2), (0.5, 0.5, 0.52, 0.98)])
def test_a_part_is_what_the_native_order_makes_of_the_whole_frame(
    size: tuple[int, int], shares: tuple[float, float, float, float]
) -> None:
    width, height = size
    probability = np.random.default_rng(5).integers(0, 256, (72, 72)).astype(np.uint8)
    whole = interpolated(masks.LOGITS[probability], width, height)
    x0, y0, x1, y1 = (int(share * edge) for share, edge in zip(shares, (width, height, width, height), strict=True))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    part, expected = enlarge(probability, (x0, y0, x1, y1), width, height), whole[y0:y1, x0:x1]
    assert part.shape == expected.shape
    assert np.abs(expected[part != (expected > 0)]).max(initial=0) < 1e-3  # float32 decides at the edge itself only


@pytest.mark.parametrize("seed", range(5))
def test_eight_bits_of_probability_cost_little_against_the_models_own_logits(seed: int) -> None:
    """Tolerance: 1 % of the mask's IoU, and no pixel farther than half a cell from the native edge."""
    logits, edge = sharp_logits(seed), 504
    native = interpolated(logits, edge, edge) > 0
    probability = (255 / (1 + np.exp(-logits)) + 0.5).astype(np.uint8)
    found = enlarge(probability, (0, 0, edge, edge), edge, edge)
    assert (found & native).sum() / (found | native).sum() > 0.99
    pixels = edge // 72 // 2 + 1
    near = cv2.dilate(native.view(np.uint8), np.ones((2 * pixels + 1,) * 2)) - cv2.erode(
        native.view(np.uint8), np.ones((2 * pixels + 1,) * 2)
    )
    assert near[found != native].all()


def test_an_edge_lies_where_logits_cross_zero_not_where_probabilities_cross_a_half() -> None:
    logits = np.repeat(np.array([[-5.0, 1.0]]), 2, axis=0)  # crosses zero at 5/6, probability a half at 0.68
    probability = np.round(255 / (1 + np.exp(-logits))).astype(np.uint8)
    inside = enlarge(probability, (0, 0, 600, 2), 600, 2)
    assert 600 - inside[0].sum() == pytest.approx(150 + 300 * 5 / 6, abs=3)


def test_an_outline_runs_along_the_mask_at_any_size_of_picture() -> None:
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

import numpy as np
import pytest
from pycocotools import mask as coco

from fusebus.vision import postprocess
from fusebus.vision.postprocess import suppress


def outputs(*found: tuple[float, tuple[float, float, float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, boxes and masks of a model that fills its boxes."""
    scores = np.array([score for score, _ in found], np.float32)
    boxes = np.array([box for _, box in found], np.float32).reshape(-1, 4)
    masks = np.zeros((len(found), 64, 64), np.uint8)
    for mask, box in zip(masks, np.nan_to_num(boxes, posinf=0), strict=True):
        x0, y0, x1, y1 = np.clip(np.round(box * 64), 0, 64).astype(int)
        mask[y0:y1, x0:x1] = 255
    return scores, boxes, masks


LEFT, RIGHT = (0.125, 0.25, 0.375, 0.75), (0.5, 0.25, 0.75, 0.75)


def test_detections_come_best_first_in_pixels_with_mask_and_outline() -> None:
    found = postprocess(*outputs((0.5, LEFT), (0.9, RIGHT), (0.1, LEFT)), 800, 400, mask_size=224)
    assert [detection.score for detection in found] == pytest.approx([0.9, 0.5])
    assert found[0].box == (400, 100, 600, 300)
    assert found[0].label == "fuse neutral"
    assert found[0].mask["size"] == [224, 224]
    rows, columns = np.nonzero(coco.decode(dict(found[0].mask)))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (112, 167, 56, 167)
    (polygon,) = found[0].polygons
    assert np.abs(polygon.min(axis=0) - (400, 100)).max() <= 3
    assert np.abs(polygon.max(axis=0) - (599, 299)).max() <= 3


def test_masks_keep_the_models_size_unless_another_is_asked_for() -> None:
    assert postprocess(*outputs((0.9, LEFT)), 800, 400)[0].mask["size"] == [64, 64]


@pytest.mark.parametrize(("threshold", "kept"), [(0.0, 3), (0.3, 2), (0.5, 1), (0.9, 0)])
def test_only_scores_above_the_threshold_are_kept(threshold: float, kept: int) -> None:
    found = outputs((0.9, LEFT), (0.5, RIGHT), (0.3, (0, 0, 0.1, 0.1)))
    assert len(postprocess(*found, 800, 400, thresholds=(threshold,))) == kept


@pytest.mark.parametrize(
    ("other", "kept"),
    [
        ((0.125, 0.25, 0.375, 0.75), 1),  # the same
        ((0.13, 0.26, 0.38, 0.76), 1),  # nearly the same: 0.92
        ((0.125, 0.25, 0.375, 0.50), 2),  # half of it: 0.5
        ((0.375, 0.25, 0.625, 0.75), 2),  # touching
    ],
)
def test_of_boxes_that_overlap_more_than_0_6_the_better_stays(
    other: tuple[float, float, float, float], kept: int
) -> None:
    found = postprocess(*outputs((0.7, other), (0.8, LEFT)), 800, 400)
    assert len(found) == kept
    assert found[0].score == pytest.approx(0.8)


def test_a_box_suppressed_by_a_better_one_suppresses_nobody() -> None:
    chain = [(0.9 - i / 10, (0.1 + i * 0.06, 0.1, 0.4 + i * 0.06, 0.9)) for i in range(3)]  # neighbours overlap 0.67
    found = postprocess(*outputs(*chain), 800, 400)
    assert [round(detection.score, 1) for detection in found] == [0.9, 0.7]


def test_what_no_model_should_say_is_dropped_or_clipped() -> None:
    nan, inf = float("nan"), float("inf")
    odd = [
        (nan, LEFT),
        (0.9, (nan, 0, 1, 1)),
        (0.8, (0, 0, inf, 1)),
        (0.7, (0.5, 0.5, 0.5, 0.9)),
        (0.6, (0.9, 0, 0.1, 1)),
    ]
    assert postprocess(*outputs(*odd), 800, 400) == []
    (found,) = postprocess(*outputs((0.9, (-0.5, -0.5, 1.5, 1.5))), 800, 400)
    assert found.box == (0, 0, 800, 400)


def test_a_detection_without_any_mask_keeps_its_box() -> None:
    scores, boxes, masks = outputs((0.9, LEFT))
    (found,) = postprocess(scores, boxes, masks * 0, 800, 400)
    assert found.polygons == ()
    assert coco.decode(dict(found.mask)).sum() == 0


def test_each_class_has_its_own_threshold_and_label() -> None:
    found = postprocess(
        *outputs((0.9, LEFT), (0.4, RIGHT), (0.4, (0, 0, 0.1, 0.1))),
        800,
        400,
        classes=np.array([1, 0, 1]),
        labels=("fuse neutral", "empty carrier"),
        thresholds=(0.3, 0.5),
    )
    assert [(detection.label, round(detection.score, 1)) for detection in found] == [
        ("empty carrier", 0.9),
        ("fuse neutral", 0.4),
    ]


def test_a_box_suppresses_those_of_its_own_class_only() -> None:
    three = outputs((0.9, LEFT), (0.8, LEFT), (0.7, LEFT))
    found = postprocess(*three, 800, 400, classes=np.array([0, 1, 0]), labels=("a", "b"), thresholds=(0.3, 0.3))
    assert [detection.label for detection in found] == ["a", "b"]


def test_a_class_that_nobody_named_is_dropped() -> None:
    assert postprocess(*outputs((0.9, LEFT), (0.8, RIGHT)), 800, 400, classes=np.array([1, -1])) == []


def test_labels_without_a_threshold_are_an_error() -> None:
    with pytest.raises(ValueError, match="1 thresholds for 2 labels"):
        postprocess(*outputs((0.9, LEFT)), 800, 400, labels=("a", "b"))


def test_suppression_is_the_greedy_loop_that_everybody_writes() -> None:
    def iou(first: np.ndarray, second: np.ndarray) -> float:
        edges = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
        shared = float(np.prod(np.maximum(edges, 0)))
        return shared / (np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - shared)

    random = np.random.default_rng(0)
    for _ in range(30):
        corner = random.random((40, 2)) * 0.3
        boxes, classes = np.hstack([corner, corner + 0.1 + random.random((40, 2)) * 0.5]), random.integers(0, 3, 40)
        kept: list[int] = []
        for index in range(40):
            rivals = [better for better in kept if classes[better] == classes[index]]
            if all(iou(boxes[index], boxes[better]) <= 0.6 for better in rivals):
                kept.append(index)
        assert suppress(boxes, classes, 0.6) == kept

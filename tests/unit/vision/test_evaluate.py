"""The arithmetic of an evaluation: matching, counting, thresholds, calibration, COCO's figures, the worst pictures."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fusebus.models.manifest import ModelError, load_manifest, write_manifest
from fusebus.vision import DEMO_MODEL
from fusebus.vision.export.coco import Instance, Sample, run_lengths
from fusebus.vision.export.evaluate import (
    Found,
    Judged,
    Model,
    _matched,
    best_thresholds,
    count_accuracy,
    figures,
    miscounted,
    reliability,
)
from fusebus.vision.export.worst import badness, draw, write_worst

SIZE = 40


def mask(x: int, y: int, edge: int = 10) -> dict[str, Any]:
    pixels = np.zeros((SIZE, SIZE), np.bool_)
    pixels[y : y + edge, x : x + edge] = True
    return run_lengths(pixels, (x, y, x + edge, y + edge))


def found(score: float, x: int, y: int, kind: int = 0) -> Found:
    return Found(kind, score, (x, y, x + 10, y + 10), mask(x, y))


def picture(truth: list[Instance], *detections: Found) -> Judged:
    matched = tuple(_matched(detections, truth))
    return Judged(Sample("a.jpg", SIZE, SIZE, tuple(truth)), tuple(truth), matched, 0.01)


def test_a_better_detection_takes_the_instance_and_its_double_is_wrong() -> None:
    judged = picture([Instance(0, mask(5, 5))], found(0.9, 5, 5), found(0.8, 6, 5))
    assert [one.iou for one in judged.found] == [1.0, 0.0]


def test_a_detection_of_another_class_matches_nothing() -> None:
    assert picture([Instance(1, mask(5, 5))], found(0.9, 5, 5, kind=0)).found[0].iou == 0


@pytest.mark.parametrize(("threshold", "expected"), [(0.1, 1), (0.5, 0), (0.95, 1)])
def test_counting_is_by_threshold(threshold: float, expected: int) -> None:
    judged = picture([Instance(0, mask(5, 5))], found(0.9, 5, 5), found(0.3, 25, 25))
    assert miscounted(judged, [threshold]) == expected
    assert count_accuracy([judged], [threshold]) == 1 - expected


def test_the_best_threshold_is_the_middle_of_those_that_count_best() -> None:
    pictures = [
        picture([Instance(0, mask(5, 5))], found(0.8, 5, 5)),
        picture([], found(0.4, 5, 5)),
    ]
    assert best_thresholds(pictures, 1) == (0.59,)


def test_reliability_compares_scores_with_the_share_that_is_right() -> None:
    pictures = [
        picture([Instance(0, mask(5, 5))], found(0.85, 5, 5)),
        picture([], found(0.87, 5, 5), found(0.12, 20, 20)),
    ]
    low, high = reliability(pictures)
    assert (low.number, low.right) == (1, 0)
    assert (high.number, high.right, high.score) == (2, 0.5, pytest.approx(0.86))


def test_a_perfect_model_has_perfect_figures() -> None:
    result = figures([picture([Instance(0, mask(5, 5))], found(0.9, 5, 5)), picture([])], [0.5])
    assert (result.ap, result.ap50, result.ap75, result.box_ap50, result.count_accuracy) == (1, 1, 1, 1, 1)
    assert (result.recall, result.precision, result.mean_mask_iou) == (1, 1, 1)


def test_coco_counts_half_for_a_model_that_finds_one_of_two() -> None:
    truth = [Instance(0, mask(5, 5)), Instance(0, mask(25, 25))]
    result = figures([picture(truth, found(0.9, 5, 5))], [0.5])
    assert result.ap50 == pytest.approx(0.505, abs=0.006)  # 51 of COCO's 101 recall levels
    assert (result.recall, result.precision, result.count_accuracy) == (0.5, 1, 0)


def test_a_model_that_finds_nothing_has_no_precision_and_no_error() -> None:
    result = figures([picture([Instance(0, mask(5, 5))])], [0.5])
    assert (result.ap50, result.recall, result.precision) == (0, 0, 0)


def test_the_worst_pictures_come_first_and_are_drawn(tmp_path: Path) -> None:
    good = picture([Instance(0, mask(5, 5))], found(0.9, 5, 5))
    bad = picture([Instance(0, mask(5, 5))], found(0.9, 25, 25), found(0.8, 5, 25))
    assert badness(bad, [0.5]) > badness(good, [0.5])
    write_worst(tmp_path, [(bad, draw(bad, np.zeros((SIZE, SIZE, 3), np.uint8), [0.5]))])
    assert (tmp_path / "01-a.jpg").read_bytes().startswith(b"\xff\xd8")


def test_a_graph_that_is_not_what_its_manifest_says_is_not_run(tmp_path: Path) -> None:
    manifest = load_manifest(DEMO_MODEL)
    (tmp_path / manifest.file).write_bytes((DEMO_MODEL / manifest.file).read_bytes())
    write_manifest(tmp_path, msgspec.structs.replace(manifest, top_k=manifest.top_k + 1))
    with pytest.raises(ModelError, match="the manifest says"):
        Model(tmp_path)

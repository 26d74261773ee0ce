"""The committed demo model, run as the inferencer runs it; and the arithmetic of its figures."""

import json

import numpy as np
import pytest

from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL
from fusebus.vision.export.evaluate import average_precision, box_iou, evaluate, open_session, parity, run_onnx


def test_the_committed_model_finds_the_neutrals_of_unseen_boards() -> None:
    figures = evaluate(DEMO_MODEL, boards=30, first_seed=200_000)
    assert figures.neutrals > 40
    assert figures.mask_ap50 >= 0.90
    assert figures.box_ap50 >= 0.90


def test_the_committed_model_is_small_and_is_the_one_its_manifest_describes() -> None:
    manifest = load_manifest(DEMO_MODEL)
    assert (DEMO_MODEL / manifest.file).stat().st_size <= 5_000_000
    assert manifest.prompts == ("fuse neutral",)
    assert json.loads((DEMO_MODEL / "manifest.json").read_text())["measured"]["boards"] >= 200


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_picture_gives_the_same_detections_in_every_batch(batch: int) -> None:
    manifest = load_manifest(DEMO_MODEL)
    session = open_session(DEMO_MODEL / manifest.file)
    size = manifest.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    scores, boxes, masks = run_onnx(session, pictures)
    assert (scores.shape, scores.dtype) == ((batch, manifest.top_k), np.float32)
    assert (boxes.shape, boxes.dtype) == ((batch, manifest.top_k, 4), np.float32)
    assert (masks.shape, masks.dtype) == ((batch, manifest.top_k, manifest.mask_size, manifest.mask_size), np.uint8)
    alone = run_onnx(session, pictures[-1:])
    np.testing.assert_allclose(scores[-1], alone[0][0], atol=1e-3)


def test_iou_of_boxes() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]], float)
    np.testing.assert_allclose(box_iou(boxes[:1], boxes), [[1, 1 / 3, 0]])


@pytest.mark.parametrize(
    ("scores", "right", "truths", "expected"),
    [
        ([0.9, 0.8], [True, True], 2, 1.0),
        ([0.9, 0.8], [True, False], 2, 0.5),
        ([0.9, 0.8], [False, True], 1, 0.5),
        ([0.5, 0.9, 0.7], [True, True, False], 2, 5 / 6),
        ([], [], 3, 0.0),
    ],
)
def test_average_precision(scores: list[float], right: list[bool], truths: int, expected: float) -> None:
    assert average_precision(np.array(scores), np.array(right, bool), truths) == pytest.approx(expected)


def test_parity_compares_detections_with_their_twins_whatever_their_order() -> None:
    scores = np.array([[0.9, 0.8, 0.1]], np.float32)
    boxes = np.array([[[0, 0, 0.2, 0.2], [0.5, 0.5, 1, 1], [0, 0, 1, 1]]], np.float32)
    masks = np.zeros((1, 3, 4, 4), np.uint8)
    masks[0, 0] = 255
    swapped = [array[:, [1, 0, 2]] for array in (scores, boxes, masks)]
    assert parity([scores, boxes, masks], swapped) == {"score": 0.0, "box": 0.0, "mask_cells": 0.0}
    assert parity([scores, boxes, masks], [scores - 0.25, boxes, masks])["score"] == 0.25

"""Owns the demo model's figures: how well an exported graph finds fuse neutrals on boards it never saw, and how alike
two runs of it are. Needs onnxruntime, not torch."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fusebus.vision.boards import Board, draw_board
from fusebus.vision.masks import enlarge, region_of
from fusebus.vision.resize import resize_to_model

OUTPUTS = ("scores", "boxes", "masks")
FIRST_SEED = 100_000  # evaluation boards: neither trained on nor used by the demo
_SIZE = (800, 600)  # pixels at which boards are drawn and masks are compared
_LEAST_SCORE = 0.02  # detections below don't enter the precision-recall curve
_IOU = 0.5

Outputs = list[NDArray[np.generic]]


@dataclass(frozen=True)
class Figures:
    """Average precisions at IoU 0.5 (all-point) of boxes, of masks as they are served (inside their box) and of masks
    over the whole picture; and at the manifest's score threshold: mean mask IoU over all neutrals (0 for a missed one),
    the shares of neutrals found and of detections right by mask, and of boards counted right.
    `cpu_ms` is wall-clock time per image at batch 1 on two threads.
    """

    boards: int
    first_seed: int
    neutrals: int
    box_ap50: float
    mask_ap50: float
    whole_mask_ap50: float
    mean_mask_iou: float
    recall: float
    precision: float
    boards_counted_right: float
    cpu_ms: float


@dataclass(frozen=True)
class _Judged:
    """One board's detections against its truth: scores (n,), IoU with every neutral (n, m)."""

    scores: NDArray[np.float64]
    box_iou: NDArray[np.float64]
    mask_iou: NDArray[np.float64]  # the mask as it is served: inside its box
    whole_mask_iou: NDArray[np.float64]  # the mask over the whole picture


def open_session(path: Path, threads: int = 2) -> onnxruntime.InferenceSession:
    """A CPU session of the model at `path`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(session: onnxruntime.InferenceSession, images: NDArray[np.uint8]) -> Outputs:
    """Scores, boxes and masks of the pictures, as the serving graph gives them."""
    return list(session.run(list(OUTPUTS), {"images": images}))


def parity(expected: Outputs, actual: Outputs) -> dict[str, float]:
    """The largest differences from `expected`, over detections that score at least 0.3 there.

    Near-equal detections may swap places, so each is compared with the one whose box is nearest. Scores are 0 to 1,
    boxes shares of the picture; for masks it is the largest share of cells that change sides of one half.
    """
    worst = {"score": 0.0, "box": 0.0, "mask_cells": 0.0}
    for scores, boxes, masks, other_scores, other_boxes, other_masks in zip(*expected, *actual, strict=True):
        for index in np.flatnonzero(scores >= 0.3):
            distance = np.abs(other_boxes - boxes[index]).max(1)
            twin = int(distance.argmin())
            worst["score"] = max(worst["score"], float(abs(other_scores[twin] - scores[index])))
            worst["box"] = max(worst["box"], float(distance[twin]))
            changed = float(((other_masks[twin] > 127) != (masks[index] > 127)).mean())
            worst["mask_cells"] = max(worst["mask_cells"], changed)
    return {name: round(value, 6) for name, value in worst.items()}


def evaluate(folder: Path, boards: int, first_seed: int = FIRST_SEED) -> Figures:
    """Measure the model in `folder` (model.onnx, manifest.json) on boards `first_seed` and following."""
    manifest = json.loads((folder / "manifest.json").read_text())
    session = open_session(folder / manifest["file"])
    judged, seconds = [], 0.0
    for seed in range(first_seed, first_seed + boards):
        board = draw_board(seed, _SIZE)
        picture = resize_to_model(board.image, manifest["image_size"])[None]
        started = time.perf_counter()
        scores, boxes, masks = (output[0] for output in run_onnx(session, picture))
        seconds += time.perf_counter() - started
        judged.append(_judge(board, scores, boxes, masks, manifest["nms_iou"]))
    return _figures(judged, manifest["score_thresholds"][0], first_seed, seconds * 1000 / boards)


def record(folder: Path, figures: Figures) -> None:
    """Write the figures into the model's manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    command = "python -m fusebus.vision.export evaluate --model DIR"
    arguments = f"--boards {figures.boards} --first-seed {figures.first_seed}"
    manifest["measured"] = {"command": f"{command} {arguments}", **asdict(figures)}
    path.write_text(json.dumps(manifest, indent=2) + "\n")


def box_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of every box of `a` (n, 4) with every box of `b` (m, 4), x1 y1 x2 y2: (n, m)."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(0).prod(2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    return np.asarray(common / (area_a[:, None] + area_b[None] - common).clip(1e-9))


def average_precision(scores: NDArray[np.float64], right: NDArray[np.bool_], truths: int) -> float:
    """Area under the precision-recall curve, precision made to fall (all-point interpolation)."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right[order]].sum() / max(1, truths))


def _judge(
    board: Board, scores: NDArray[np.generic], boxes: NDArray[np.generic], masks: NDArray[np.generic], nms_iou: float
) -> _Judged:
    height, width = board.image.shape[:2]
    places = np.asarray(boxes, np.float64) * np.array([width, height, width, height])
    kept: list[int] = []
    for index in np.flatnonzero(np.asarray(scores) >= _LEAST_SCORE):  # scores fall
        if not kept or box_iou(places[[index]], places[kept]).max() <= nms_iou:
            kept.append(int(index))
    mask_iou = np.zeros((2, len(kept), len(board.masks)))
    for row, number in enumerate(kept):
        for kind, region in enumerate((region_of(tuple(places[number]), width, height), (0, 0, width, height))):
            mask = np.zeros((height, width), np.bool_)
            mask[region[1] : region[3], region[0] : region[2]] = enlarge(masks[number], region, width, height)
            for column, truth in enumerate(board.masks):
                mask_iou[kind, row, column] = (mask & truth).sum() / max(1, (mask | truth).sum())
    by_box = box_iou(places[kept], board.boxes.astype(np.float64))
    return _Judged(np.asarray(scores, np.float64)[kept], by_box, mask_iou[0], mask_iou[1])


def _match(overlap: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each detection, best first, the free neutral it overlaps most by at least one half, or -1."""
    free = np.ones(overlap.shape[1], bool)
    matched = np.full(len(overlap), -1)
    for row, shares in enumerate(overlap):
        candidates = np.where(free, shares, 0)
        if len(candidates) and candidates.max() >= _IOU:
            matched[row] = int(candidates.argmax())
            free[matched[row]] = False
    return matched


def _figures(judged: Sequence[_Judged], threshold: float, first_seed: int, cpu_ms: float) -> Figures:
    truths = sum(one.mask_iou.shape[1] for one in judged)
    scores = np.concatenate([one.scores for one in judged])
    by_box = np.concatenate([_match(one.box_iou) >= 0 for one in judged])
    by_mask = [_match(one.mask_iou) for one in judged]
    by_whole_mask = np.concatenate([_match(one.whole_mask_iou) >= 0 for one in judged])
    sure = [one.scores >= threshold for one in judged]
    found = sum(int((match[keep] >= 0).sum()) for match, keep in zip(by_mask, sure, strict=True))
    overlap = sum(float(one.mask_iou[keep].max(0, initial=0.0).sum()) for one, keep in zip(judged, sure, strict=True))
    counted = [int(keep.sum()) == one.mask_iou.shape[1] for one, keep in zip(judged, sure, strict=True)]
    return Figures(
        boards=len(judged),
        first_seed=first_seed,
        neutrals=truths,
        box_ap50=round(average_precision(scores, by_box, truths), 4),
        mask_ap50=round(average_precision(scores, np.concatenate(by_mask) >= 0, truths), 4),
        whole_mask_ap50=round(average_precision(scores, by_whole_mask, truths), 4),
        mean_mask_iou=round(overlap / max(1, truths), 4),
        recall=round(found / max(1, truths), 4),
        precision=round(found / max(1, sum(int(keep.sum()) for keep in sure)), 4),
        boards_counted_right=round(float(np.mean(counted)), 4),
        cpu_ms=round(cpu_ms, 2),
    )

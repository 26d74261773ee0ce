"""Owns a model's figures: how well an exported graph finds and counts what pictures hold. Needs onnxruntime, not torch.

Masks are judged as they are served: inside their box, enlarged to the picture's own size. Average precision is COCO's,
by pycocotools. Counting is judged after the threshold and the suppression that serving applies.
"""

import contextlib
import io
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fusebus.models.inspection import inspect_graph
from fusebus.models.manifest import ModelManifest, load_manifest
from fusebus.vision.boards import draw_board, photo_size
from fusebus.vision.export.coco import CocoFolder, Instance, Sample, run_lengths
from fusebus.vision.jpeg import encode_jpeg
from fusebus.vision.masks import enlarge, region_of
from fusebus.vision.postprocess import suppress
from fusebus.vision.resize import resize_to_model
from fusebus.vision.rle import encode_part

FIRST_SEED = 100_000  # evaluation boards: neither trained on nor used by the demo
MEGAPIXELS = 12.0  # of the largest photographs
LEAST_SCORE = 0.02  # detections below don't enter the precision-recall curve
_IOU = 0.5  # of masks, from which a detection counts as right


@dataclass(frozen=True)
class Found:
    """One detection. mask: run lengths at the picture's size. iou: with the instance it was matched to, or 0."""

    kind: int
    score: float
    box: tuple[float, float, float, float]
    mask: dict[str, Any]
    iou: float = 0.0


@dataclass(frozen=True)
class Judged:
    """One picture: its truth (instances by the model's classes) and what was found, best first, matched with it."""

    sample: Sample
    truth: tuple[Instance, ...]
    found: tuple[Found, ...]
    seconds: float


@dataclass(frozen=True)
class Figures:
    """COCO's average precisions of masks (and at IoU 0.5 of boxes); the rest at the manifest's thresholds: the share of
    pictures in which every class is counted right, recall and precision at mask IoU 0.5, the mean mask IoU over all
    instances (0 for a missed one). calibration_error: mean distance of a score from the share of right ones among its
    like. cpu_ms: wall-clock time of the graph per picture at batch 1.
    """

    pictures: int
    instances: int
    ap: float
    ap50: float
    ap75: float
    box_ap50: float
    count_accuracy: float
    recall: float
    precision: float
    mean_mask_iou: float
    calibration_error: float
    cpu_ms: float


@dataclass(frozen=True)
class Bin:
    """Detections whose scores lie between low and high: how many, their mean score, and the share that is right."""

    low: float
    high: float
    number: int
    score: float
    right: float


def board_samples(seeds: Iterable[int], megapixels: float = MEGAPIXELS) -> Iterator[Sample]:
    """Synthetic boards as photographs that somebody would upload: 1 to 12 MP (at most `megapixels`), through JPEG."""
    for seed in seeds:
        across, down = photo_size(seed)
        scale = min(1.0, (megapixels * 1e6 / (across * down)) ** 0.5)
        board = draw_board(seed, (round(across * scale), round(down * scale)))
        height, width = board.image.shape[:2]
        masks = [
            Instance(1, run_lengths(mask, (int(box[0]), int(box[1]), int(box[2]), int(box[3]))))
            for mask, box in zip(board.masks, board.boxes, strict=True)
        ]
        yield Sample(f"board-{seed}.jpg", width, height, tuple(masks), data=encode_jpeg(board.image))


class Model:
    """An exported model on the CPU."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Raises ModelError where the folder is not what its manifest says, or its graph is not harmless."""
        self.manifest: ModelManifest = load_manifest(folder)
        inspect_graph(folder, self.manifest)  # people measure models of others, too
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            folder / self.manifest.file, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The graph's outputs by name; every detection is of class 0 where it has but one class."""
        outputs = dict(zip(self._names, self._session.run(None, {"images": images}), strict=True))
        outputs.setdefault("classes", np.zeros(outputs["scores"].shape, np.int64))
        return outputs

    def find(self, pixels: NDArray[np.uint8]) -> tuple[list[Found], float]:
        """What scores at least LEAST_SCORE in a picture, best first, and the seconds that the graph took."""
        picture = resize_to_model(pixels, self.manifest.image_size)[None]
        started = time.perf_counter()
        outputs = {name: values[0] for name, values in self.run(picture).items()}
        seconds = time.perf_counter() - started
        keep = np.flatnonzero(outputs["scores"] >= LEAST_SCORE)
        boxes = outputs["boxes"][keep].astype(np.float64).clip(0, 1)
        keep, boxes = keep[solid := (boxes[:, 2:] > boxes[:, :2]).all(1)], boxes[solid]
        kept = suppress(boxes, outputs["classes"][keep], self.manifest.nms_iou)
        height, width = pixels.shape[:2]
        return [
            _found(outputs, int(keep[row]), boxes[row] * np.array([width, height] * 2), width, height) for row in kept
        ], seconds


def _found(outputs: dict[str, NDArray[Any]], index: int, box: NDArray[np.float64], width: int, height: int) -> Found:
    x0, y0, x1, y1 = box.tolist()
    region = region_of((x0, y0, x1, y1), width, height)
    part = enlarge(outputs["masks"][index], region, width, height)
    mask = encode_part(part, region[0], region[1], width, height)
    return Found(
        kind=int(outputs["classes"][index]),
        score=float(outputs["scores"][index]),
        box=(x0, y0, x1, y1),
        mask={"size": mask["size"], "counts": mask["counts"].encode()},
    )


def class_of_category(model: ModelManifest, data: CocoFolder | None) -> dict[int, int]:
    """The model's class for each category id of the data; synthetic boards have the one category 1."""
    if data is None:
        return {1: 0}
    return {data.category_of(prompt): number for number, prompt in enumerate(model.prompts)}


def judge(model: Model, sample: Sample, classes: dict[int, int]) -> Judged:
    """Run the model on one picture and match what it found with the truth, class by class."""
    found, seconds = model.find(sample.read())
    truth = tuple(
        Instance(classes[one.category], one.mask, one.crowd) for one in sample.instances if one.category in classes
    )
    return Judged(sample_without_data(sample), truth, tuple(_matched(found, truth)), seconds)


def sample_without_data(sample: Sample) -> Sample:
    """The same without its file, several megabytes."""
    return Sample(sample.name, sample.width, sample.height, sample.instances, sample.path)


def _matched(found: Sequence[Found], truth: Sequence[Instance]) -> Iterator[Found]:
    free = np.array([not one.crowd for one in truth], np.bool_)
    crowds = [int(one.crowd) for one in truth]
    overlap = (
        coco_mask.iou([one.mask for one in found], [one.mask for one in truth], crowds)
        if found and truth
        else np.zeros((len(found), len(truth)))
    )
    kinds = np.array([one.category for one in truth], np.int64)
    for one, row in zip(found, overlap, strict=True):
        shares = np.where(free & (kinds == one.kind), row, 0.0)
        best = int(shares.argmax()) if len(shares) else -1
        iou = float(shares[best]) if best >= 0 else 0.0
        if iou >= _IOU:
            free[best] = False
        yield Found(one.kind, one.score, one.box, one.mask, iou if iou >= _IOU else 0.0)


def figures(judged: Sequence[Judged], thresholds: Sequence[float]) -> Figures:
    """All figures of the judged pictures at these thresholds, one per class."""
    masks, boxes = _coco(judged, "segm"), _coco(judged, "bbox")
    sure = [[one for one in picture.found if one.score > thresholds[one.kind]] for picture in judged]
    instances = sum(not one.crowd for picture in judged for one in picture.truth)
    right = sum(one.iou > 0 for found in sure for one in found)
    bins = reliability(judged)
    number = max(1, sum(one.number for one in bins))
    return Figures(
        pictures=len(judged),
        instances=instances,
        ap=round(masks[0], 4),
        ap50=round(masks[1], 4),
        ap75=round(masks[2], 4),
        box_ap50=round(boxes[1], 4),
        count_accuracy=round(count_accuracy(judged, thresholds), 4),
        recall=round(right / max(1, instances), 4),
        precision=round(right / max(1, sum(map(len, sure))), 4),
        mean_mask_iou=round(sum(one.iou for found in sure for one in found) / max(1, instances), 4),
        calibration_error=round(sum(one.number * abs(one.score - one.right) for one in bins) / number, 4),
        cpu_ms=round(float(np.median([picture.seconds for picture in judged])) * 1000, 2),
    )


def count_accuracy(judged: Sequence[Judged], thresholds: Sequence[float]) -> float:
    """The share of pictures in which every class is found as often as it is there, above its threshold."""
    return float(np.mean([miscounted(picture, thresholds) == 0 for picture in judged]))


def miscounted(picture: Judged, thresholds: Sequence[float]) -> int:
    """By how many the counts are wrong, over all classes."""
    wrong = 0
    for kind, threshold in enumerate(thresholds):
        there = sum(one.category == kind and not one.crowd for one in picture.truth)
        wrong += abs(there - sum(one.kind == kind and one.score > threshold for one in picture.found))
    return wrong


def best_thresholds(judged: Sequence[Judged], classes: int) -> tuple[float, ...]:
    """For each class the threshold that counts most pictures right: the middle of the longest stretch of best ones."""
    steps = np.round(np.arange(0.05, 0.951, 0.01), 2)
    found = []
    for kind in range(classes):
        scores = []
        for step in steps:
            only = [2.0] * classes  # above every score: the other classes are left out on both sides
            only[kind] = float(step)
            scores.append(np.mean([_right_count(picture, kind, float(step)) for picture in judged]))
        best = np.asarray(scores) >= max(scores) - 0.001
        found.append(float(steps[_middle_of_longest(best)]))
    return tuple(found)


def _right_count(picture: Judged, kind: int, threshold: float) -> bool:
    there = sum(one.category == kind and not one.crowd for one in picture.truth)
    return there == sum(one.kind == kind and one.score > threshold for one in picture.found)


def _middle_of_longest(wanted: NDArray[np.bool_]) -> int:
    bounds = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]])))
    runs = bounds.reshape(-1, 2)
    start, end = runs[(runs[:, 1] - runs[:, 0]).argmax()]
    return int(start + end - 1) // 2


def reliability(judged: Sequence[Judged], bins: int = 10) -> list[Bin]:
    """How often detections of each range of scores are right: in a calibrated model as often as the score says."""
    scores = np.array([one.score for picture in judged for one in picture.found])
    right = np.array([one.iou > 0 for picture in judged for one in picture.found], np.float64)
    table = []
    for low in np.arange(bins) / bins:
        inside = (scores >= low) & (scores < low + 1 / bins)
        if inside.any():
            mean, share = float(scores[inside].mean()), float(right[inside].mean())
            table.append(Bin(float(low), float(low + 1 / bins), int(inside.sum()), mean, share))
    return table


def _coco(judged: Sequence[Judged], kind: str) -> tuple[float, float, float]:
    """COCO's AP over IoU 0.5 to 0.95, at 0.5 and at 0.75, of masks ("segm") or boxes ("bbox")."""
    truth = COCO()
    truth.dataset = {"images": [], "annotations": [], "categories": []}
    results = []
    for number, picture in enumerate(judged, start=1):
        truth.dataset["images"].append({"id": number, "width": picture.sample.width, "height": picture.sample.height})
        truth.dataset["annotations"] += [_truth_entry(number, one) for one in picture.truth]
        results += [_result_entry(number, one) for one in picture.found]
    annotations = truth.dataset["annotations"]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    truth.dataset["categories"] = [{"id": one} for one in sorted({one["category_id"] for one in annotations})]
    if not annotations or not results:
        return 0.0, 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):  # it tells its progress there
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0]), float(run.stats[1]), float(run.stats[2])


def _truth_entry(image: int, one: Instance) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": one.category + 1,
        "segmentation": one.mask,
        "bbox": coco_mask.toBbox(one.mask).tolist(),
        "area": float(coco_mask.area(one.mask)),
        "iscrowd": int(one.crowd),
    }


def _result_entry(image: int, one: Found) -> dict[str, Any]:
    x0, y0, x1, y1 = one.box
    return {
        "image_id": image,
        "category_id": one.kind + 1,
        "segmentation": one.mask,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "score": one.score,
    }

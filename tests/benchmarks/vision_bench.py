"""CPU time from a photo's bytes to its annotated picture, beside what people write, in one interleaved run.

Prints two tables, the stages and the marks to reach, and writes benchmarks/vision.json. All times are medians of this
process's CPU time, its other threads included.

Example: .venv/bin/python tests/benchmarks/vision_bench.py
"""

import argparse
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyvips
import simplejpeg
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from fusebus.vision import annotate, decode, encode_jpeg, inspect, postprocess, resize_to_model, rle
from fusebus.vision.boards import draw_board
from fusebus.vision.masks import enlarge, region_of

SIZES = ((1600, 1200), (4000, 3000))
INPUTS = ((1008, 288), (280, 80))
"""Edges of the model's input and its masks: the full SAM 3, the demo model."""
DETECTIONS = 10
QUERIES = 100
WIDTH, HEIGHT = 0.106, 0.177  # of a neutral, in shares of the picture: the median of 16 boards
MASK_SHARES = (0.05, 0.1, 0.2, 0.3)
"""Edge of a mask's box, of the picture's."""
SEED = 100_000  # a board that the model never saw
RUN_LENGTHS_MARK, PHOTO_MARK_MS, DECIBELS_MARK = 8.0, 80.0, 50.0
LIBRARIES = ("numpy", "opencv-python-headless", "simplejpeg", "pyvips-binary", "pillow", "pycocotools")

Stages = dict[str, Callable[[], object]]


def medians(stages: Stages, runs: int, calls: int = 1) -> dict[str, float]:
    """Milliseconds of each; interleaved, so that a noisy moment meets all of them. `calls` for what is very short."""
    taken: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(runs + 1):
        for name, stage in stages.items():
            before = time.process_time()
            for _ in range(calls):
                stage()
            taken[name].append((time.process_time() - before) / calls)
    return {name: statistics.median(seconds[1:]) * 1000 for name, seconds in taken.items()}  # the first one warms up


def photograph(size: tuple[int, int]) -> bytes:
    """A board as a camera's JPEG of quality 90."""
    return encode_jpeg(draw_board(SEED, size).image)


def model_outputs(mask_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a model would say of ten neutrals side by side: scores, boxes, masks as the serving graph gives them."""
    scores = np.zeros(QUERIES, np.float32)
    scores[:DETECTIONS] = 0.9
    boxes = np.zeros((QUERIES, 4), np.float32)
    masks = np.zeros((QUERIES, mask_size, mask_size), np.uint8)
    y, x = (np.mgrid[0:mask_size, 0:mask_size] + 0.5) / mask_size
    for number in range(DETECTIONS):
        left, top = 0.02 + 0.19 * (number % 5), 0.2 + 0.4 * (number // 5)
        boxes[number] = (left, top, left + WIDTH, top + HEIGHT)
        inside = 1 - (2 * (x - left) / WIDTH - 1) ** 4 - (2 * (y - top) / HEIGHT - 1) ** 4
        masks[number] = 255 / (1 + np.exp(np.clip(-8 * inside, -30, 30))) + 0.5
    return scores, boxes, masks


def stages_of(data: bytes, edge: int, mask_edge: int) -> Stages:
    """Ours, one by one, and all together."""
    pixels, outputs = decode(data), model_outputs(mask_edge)
    height, width = pixels.shape[:2]

    def detections() -> list:
        return postprocess(*outputs, width, height, mask_size=edge)

    memory = np.empty(pixels.size, np.uint8)  # used again, as a worker does

    def everything() -> bytes:
        rgb = decode(data, memory=memory)
        resize_to_model(rgb, edge)
        return encode_jpeg(annotate(rgb, postprocess(*outputs, width, height, mask_size=edge)))

    found, canvas = detections(), pixels.copy()
    return {
        "inspect": lambda: inspect(data),
        "decode": lambda: decode(data, memory=memory),
        "resize": lambda: resize_to_model(pixels, edge),
        "10 masks": detections,
        "draw": lambda: annotate(canvas, found),
        "JPEG": lambda: encode_jpeg(pixels),
        "all": everything,
        "JPEG library alone": lambda: simplejpeg.encode_jpeg(
            simplejpeg.decode_jpeg(data, "RGB", fastupsample=True, buffer=memory, strict=True), 90, "RGB", "420"
        ),
    }


def as_people_write(data: bytes, edge: int, mask_edge: int) -> Callable[[], object]:
    """The same with Pillow and pycocotools: masks upsampled to the whole frame, composited there, encoded there."""
    scores, boxes, masks = model_outputs(mask_edge)

    def everything() -> bytes:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        np.asarray(image.resize((edge, edge), Image.Resampling.BILINEAR))
        for number in np.flatnonzero(scores > 0.3):
            whole = Image.fromarray(masks[number]).resize(image.size, Image.Resampling.BILINEAR)
            inside = whole.point(lambda value: 255 * (value > 127))
            image = Image.composite(
                Image.blend(image, Image.new("RGB", image.size, (0, 214, 201)), 0.28), image, inside
            )
            small = Image.fromarray(masks[number]).resize((edge, edge), Image.Resampling.BILINEAR)
            coco.encode(np.asfortranarray((np.asarray(small) > 127).astype(np.uint8)))
            corners = boxes[number] * np.array([image.width, image.height] * 2)
            ImageDraw.Draw(image).rectangle(corners.tolist(), outline=(0, 214, 201), width=8)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=90)
        return out.getvalue()

    return everything


def plainly(data: bytes, edge: int, mask_edge: int) -> Callable[[], object]:
    """The same with our libraries, one call a step on one thread; its time also tells how fast the machine is now.

    It does less than ours: no look at the header, no suppression of boxes, no run lengths, no labels, no outline but
    the box's. It does more, too: memory that was never used, interpolated colours, every pixel filtered.
    """
    scores, boxes, masks = model_outputs(mask_edge)

    def everything() -> bytes:
        rgb = simplejpeg.decode_jpeg(data, "RGB", strict=True)
        height, width = rgb.shape[:2]
        picture = pyvips.Image.new_from_memory(rgb, width, height, 3, "uchar")
        picture.resize(edge / width, vscale=edge / height, kernel="linear").write_to_memory()
        for number in np.flatnonzero(scores > 0.3):
            x0, y0, x1, y1 = (boxes[number] * np.array([width, height] * 2)).astype(int)
            left, top, right, bottom = (boxes[number] * mask_edge).astype(int)
            mask = cv2.resize(masks[number][top : bottom + 1, left : right + 1], (x1 - x0, y1 - y0))
            part = rgb[y0:y1, x0:x1]
            tinted = cv2.add(cv2.convertScaleAbs(part, alpha=0.72), (0, 0.28 * 214, 0.28 * 201, 0))
            cv2.copyTo(tinted, (mask > 127).astype(np.uint8), part)
            cv2.rectangle(rgb, (int(x0), int(y0)), (int(x1), int(y1)), (0, 214, 201), 8)
        return simplejpeg.encode_jpeg(rgb, 90, "RGB", "420")

    return everything


def decibels(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio."""
    return float(10 * np.log10(255**2 / np.mean((first.astype(np.float32) - second) ** 2)))


def blob(edge: int, share: float) -> np.ndarray:
    """A mask (edge, edge) of 0 and 1 with a wavy outline; its box has `share` of the edge."""
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    radius = edge * share / 2 * (0.92 + 0.08 * np.sin(5 * angle))
    mask = np.zeros((edge, edge), np.uint8)
    outline = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + edge * 0.4
    cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 1)
    return mask


def run_length_marks(runs: int) -> Iterator[dict[str, Any]]:
    """Ours from inside the box against pycocotools, at each size."""
    for edge, _ in INPUTS:
        for share in MASK_SHARES:
            mask = blob(edge, share)
            x, y, width, height = cv2.boundingRect(mask)
            box = region_of((x, y, x + width, y + height), edge, edge)
            assert rle.encode(mask, box)["counts"] == coco.encode(np.asfortranarray(mask))["counts"].decode()
            taken = medians(
                {
                    "ours": lambda mask=mask, box=box: rle.encode(mask, box),
                    "peer": lambda mask=mask: coco.encode(np.asfortranarray(mask)),
                },
                runs,
                calls=20,
            )
            name = f"run lengths of a {edge}² mask, box {share:.0%} of the edge"
            yield compared(name, "pycocotools, encode(np.asfortranarray(mask))", taken, RUN_LENGTHS_MARK)


def enlarging(runs: int) -> dict[str, Any]:
    """One mask at 12 million pixels: inside its box, and over the whole frame."""
    (width, height), masks = SIZES[-1], model_outputs(288)[2]
    region = region_of((0.02 * width, 0.2 * height, (0.02 + WIDTH) * width, (0.2 + HEIGHT) * height), width, height)

    def whole() -> object:
        return cv2.resize(masks[0].astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 127.5

    taken = medians({"ours": lambda: enlarge(masks[0], region, width, height), "peer": whole}, runs)
    return compared("a mask enlarged to 12 MP, logits in its box", "OpenCV, the whole frame", taken, None)


def compared(name: str, peer: str, taken: dict[str, float], mark: float | None) -> dict[str, Any]:
    """A row: how many times faster than the peer, and whether that is enough."""
    ratio = taken["peer"] / taken["ours"]
    row = {"what": name, "ours_ms": round(taken["ours"], 4), "peer": peer, "peer_ms": round(taken["peer"], 4)}
    row |= {"ratio": round(ratio, 2), "mark": f"≥ {mark:g} ×" if mark else "–"}
    return row | {"verdict": verdict(ratio >= mark) if mark else "–"}


def verdict(reached: bool) -> str:
    """In the table's words."""
    return "reached" if reached else "falls short"


def photo_marks(size: tuple[int, int], runs: int) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Stages of one photograph for each input size; for the largest photograph its marks, too."""
    data, stages, marks = photograph(size), {}, []
    megabytes = f"{len(data) / 1e6:.1f} MB"
    for edge, mask_edge in INPUTS:
        people, plain = as_people_write(data, edge, mask_edge), plainly(data, edge, mask_edge)
        exact = Image.fromarray(decode(data))
        resized = lambda exact=exact, edge=edge: exact.resize((edge, edge), Image.Resampling.BILINEAR)  # noqa: E731
        taken = medians(
            stages_of(data, edge, mask_edge) | {"plain": plain, "people": people, "Pillow's resize": resized}, runs
        )
        stages[f"{size[0]} × {size[1]} ({megabytes}), input {edge}"] = {
            name: round(ms, 2) for name, ms in taken.items()
        }
        if size != SIZES[-1]:
            continue
        whole = compared(
            f"12 MP photo ({megabytes}) to drawn JPEG, input {edge}",
            "Pillow and pycocotools",
            {"ours": taken["all"], "peer": taken["people"]},
            None,
        )
        whole |= {"mark": f"≤ {PHOTO_MARK_MS:g} ms", "verdict": verdict(taken["all"] <= PHOTO_MARK_MS)}
        parts = compared(
            f"12 MP photo ({megabytes}) to drawn JPEG, input {edge}",
            "our libraries called plainly",
            {"ours": taken["all"], "peer": taken["plain"]},
            None,
        )
        small = compared(
            f"12 MP to {edge}", "Pillow, bilinear", {"ours": taken["resize"], "peer": taken["Pillow's resize"]}, None
        )
        near = decibels(resize_to_model(np.asarray(exact), edge), np.asarray(resized()))
        small |= {
            "what": f"12 MP to {edge}: {near:.1f} dB",
            "mark": f"≥ {DECIBELS_MARK:g} dB",
            "verdict": verdict(near >= DECIBELS_MARK),
        }
        marks += [whole, parts, small]
    return stages, marks


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/vision.json"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # as in the inferencer, whose own threads are counted already
    pyvips.concurrency_set(1)  # for the plain peer
    stages: dict[str, dict[str, float]] = {}
    marks: list[dict[str, Any]] = []
    for size in SIZES:
        found, reached = photo_marks(size, arguments.runs)
        stages |= found
        marks += reached
    marks += [enlarging(arguments.runs), *run_length_marks(arguments.runs)]
    names = list(next(iter(stages.values())))
    print("| milliseconds | " + " | ".join(names) + " |\n| --- |" + " --- |" * len(names))
    for picture, taken in stages.items():
        print(f"| {picture} | " + " | ".join(f"{taken[name]:.3g}" for name in names) + " |")
    print("\n| what | ours | peer | peer's | ratio | mark | |\n| --- | --- | --- | --- | --- | --- | --- |")
    for row in marks:
        cells = [row["what"], f"{row['ours_ms']:.3g} ms", row["peer"], f"{row['peer_ms']:.3g} ms"]
        print("| " + " | ".join([*cells, f"{row['ratio']:.2f}", row["mark"], row["verdict"]]) + " |")
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    figures = {"machine": machine | {name: version(name) for name in LIBRARIES}, "milliseconds": stages, "marks": marks}
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""CPU time of each stage from a photo's bytes to its annotated picture: a table, and benchmarks/vision.json.

Example: .venv/bin/python tests/benchmarks/vision_bench.py
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fusebus.models import load_manifest
from fusebus.vision import (
    DEMO_MODEL,
    annotate,
    decode,
    encode_jpeg,
    inspect,
    postprocess,
    resize_to_model,
)
from fusebus.vision.boards import draw_board

SIZES = ((1600, 1200), (4000, 3000))
DETECTIONS = 10
SEED = 100_000  # a board that the model never saw


def model_outputs(count: int, queries: int, mask_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a model would say of `count` neutrals side by side: scores, boxes, masks as the serving graph gives them."""
    scores = np.zeros(queries, np.float32)
    scores[:count] = 0.9
    boxes = np.zeros((queries, 4), np.float32)
    masks = np.zeros((queries, mask_size, mask_size), np.uint8)
    for number in range(count):
        left, top = 0.02 + 0.19 * (number % 5), 0.2 + 0.4 * (number // 5)
        boxes[number] = (left, top, left + 0.12, top + 0.25)
        columns = slice(round(left * mask_size), round((left + 0.12) * mask_size))
        masks[number, round(top * mask_size) : round((top + 0.25) * mask_size), columns] = 255
    return scores, boxes, masks


def measure(size: tuple[int, int], runs: int) -> dict[str, float]:
    """Median milliseconds of one thread's CPU for each stage."""
    manifest = load_manifest(DEMO_MODEL)
    data = encode_jpeg(draw_board(SEED, size).image)
    pixels = decode(data)
    outputs = model_outputs(DETECTIONS, max(DETECTIONS, manifest.top_k), manifest.mask_size)

    def detections() -> list:
        return postprocess(*outputs, *size, label="fuse neutral", mask_size=manifest.image_size)

    found, canvas = detections(), pixels.copy()
    stages: dict[str, Callable[[], object]] = {
        "inspect": lambda: inspect(data),
        "decode": lambda: decode(data),
        f"resize to {manifest.image_size}": lambda: resize_to_model(pixels, manifest.image_size),
        f"{DETECTIONS} detections": detections,
        "annotate": lambda: annotate(canvas, found),
        "JPEG, quality 90": lambda: encode_jpeg(pixels),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(runs):  # interleaved, so that a noisy moment meets all stages
        for name, stage in stages.items():
            before = time.thread_time()
            stage()
            seconds[name].append(time.thread_time() - before)
    return {name: round(statistics.median(taken) * 1000, 2) for name, taken in seconds.items()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/vision.json"))
    arguments = parser.parse_args()
    results = {f"{width} × {height}": measure((width, height), arguments.runs) for width, height in SIZES}
    stages = list(next(iter(results.values())))
    print("| picture | " + " | ".join(stages) + " |\n| --- |" + " --- |" * len(stages))
    for picture, taken in results.items():
        print(f"| {picture} | " + " | ".join(f"{taken[stage]:.2g} ms" for stage in stages) + " |")
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(
        json.dumps({"machine": machine, "milliseconds": results}, indent=1, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    main()

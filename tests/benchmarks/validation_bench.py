"""What a verdict costs: CPU and wall time and memory by format and size, the guards' share, and what damage is found.

Each file is judged by `fusebus.validation` as in production. Prints tables and writes benchmarks/validation.json.

Example: .venv/bin/python tests/benchmarks/validation_bench.py
"""

import argparse
import asyncio
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from fusebus.validation import ForkServer, Validator
from fusebus.validation.examine import examine
from fusebus.vision import decode, encode_jpeg, inspect

SIZES = {"2 MP": (1600, 1200), "12 MP": (4000, 3000), "30 MP": (6324, 4744)}
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90},
    "progressive JPEG": {"quality": 90, "progressive": True},
    "PNG": {"compress_level": 3},
    "WebP": {"quality": 85, "method": 2},
}
P99_MARK_SECONDS, MEMORY_MARK_MB, CPU_MARK_MS, RATE_MARK = 1.0, 512, 250, 25
SERVERS = 2


def photograph(width: int, height: int, seed: int) -> np.ndarray:
    """Like a photo: soft areas, edges, grain."""
    random = np.random.default_rng(seed)
    coarse = random.integers(30, 225, (height // 60 + 2, width // 60 + 2, 3), np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = random.integers(-5, 6, (600, 600, 3), np.int16)
    picture += np.tile(grain, (height // 600 + 1, width // 600 + 1, 1))[:height, :width]
    return np.clip(picture, 0, 255).astype(np.uint8)


def saved(pixels: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind.split()[-1], **KINDS[kind])
    return out.getvalue()


def costs(runs: int) -> dict[str, dict[str, float]]:
    """Medians and the worst of each kind and size; every second file with its derivative."""
    found: dict[str, dict[str, float]] = {}
    server = ForkServer()
    server.start()
    times: list[tuple[float, float]] = []
    for size, (width, height) in SIZES.items():
        pixels = photograph(width, height, 1)
        for kind in KINDS:
            data = saved(pixels, kind)
            spent = [server.check(data, derivative=bool(run % 2)).cost for run in range(runs)]
            times += [(cost.cpu_seconds, cost.wall_seconds) for cost in spent]
            found[f"{size} {kind}"] = {
                "file_mb": round(len(data) / 1e6, 1),
                "cpu_ms": round(statistics.median(cost.cpu_seconds for cost in spent[::2]) * 1e3),
                "cpu_with_derivative_ms": round(statistics.median(cost.cpu_seconds for cost in spent[1::2]) * 1e3),
                "wall_ms": round(statistics.median(cost.wall_seconds for cost in spent) * 1e3),
                "peak_mb": round(max(cost.peak_bytes for cost in spent) / 1e6),
            }
    server.close()
    cpu, wall = (sorted(column)[int(len(times) * 0.99)] for column in zip(*times, strict=True))
    found["all"] = {"files": len(times), "p99_cpu_s": round(cpu, 2), "p99_wall_s": round(wall, 2)}
    return found


async def rates(count: int) -> dict[str, float]:
    """Photos of 2 MP a second on two cores: in guarded children, the same work unguarded, and only decoded."""
    photos = [encode_jpeg(photograph(1600, 1200, seed), 90) for seed in range(20)]

    async def each(judge: Callable[[bytes], Any]) -> float:
        began = time.perf_counter()
        places = asyncio.Semaphore(2 * SERVERS)

        async def one(data: bytes) -> None:
            async with places:
                await judge(data)

        await asyncio.gather(*(one(photos[number % len(photos)]) for number in range(count)))
        return round(count / (time.perf_counter() - began), 1)

    async with Validator(SERVERS) as validator:
        await validator.start()
        return {
            "guarded": await each(validator.check),
            "unguarded": await each(lambda data: asyncio.to_thread(examine, data)),
            "decoded only": await each(lambda data: asyncio.to_thread(lambda: (inspect(data), decode(data)))),
        }


def found_damage(tries: int) -> dict[str, dict[str, float]]:
    """The share of damaged files that are refused: a stretch of zeros or of random bytes anywhere behind the header."""
    random, shares = np.random.default_rng(7), {}
    for kind in (*KINDS, "lossless WebP"):
        out = io.BytesIO()
        if kind == "lossless WebP":
            Image.fromarray(photograph(800, 600, 3)).save(out, "WEBP", lossless=True, method=1)
            sound = out.getvalue()
        else:
            sound = saved(photograph(800, 600, 3), kind)
        found = {}
        for length in (64, 512, 4096):
            for blot in ("zeros", "random"):
                refused = 0
                for _ in range(tries):
                    start = int(random.integers(1_000, len(sound) - length - 2))
                    middle = bytes(length) if blot == "zeros" else random.bytes(length)
                    refused += not examine(sound[:start] + middle + sound[start + length :]).accepted
                found[f"{blot} {length}"] = round(refused / tries, 3)
        shares[kind] = found
    return shares


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=10, help="verdicts for each kind and size")
    arguments.add_argument("--photos", type=int, default=300, help="photos for each rate")
    arguments.add_argument("--tries", type=int, default=100, help="damaged files of each sort")
    arguments.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "benchmarks/validation.json")
    chosen = arguments.parse_args()
    cv2.setNumThreads(0)
    by_kind, rate, damage = costs(chosen.runs), asyncio.run(rates(chosen.photos)), found_damage(chosen.tries)
    for name, values in by_kind.items():
        print(f"{name:24}", "  ".join(f"{key} {value}" for key, value in values.items()))
    for name, values in damage.items():
        print(f"damage found, {name:18}", "  ".join(f"{key} {value:.0%}" for key, value in values.items()))
    print("photos of 2 MP a second:", rate)
    marks = {
        f"p99 up to 30 MP <= {P99_MARK_SECONDS} s": by_kind["all"]["p99_wall_s"] <= P99_MARK_SECONDS,
        f"p99 up to 30 MP <= {P99_MARK_SECONDS} s of CPU": by_kind["all"]["p99_cpu_s"] <= P99_MARK_SECONDS,
        f"memory up to 30 MP <= {MEMORY_MARK_MB} MB": all(
            found["peak_mb"] <= MEMORY_MARK_MB for name, found in by_kind.items() if name != "all"
        ),
        f"12 MP JPEG <= {CPU_MARK_MS} ms CPU": by_kind["12 MP JPEG"]["cpu_ms"] <= CPU_MARK_MS,
        f"guarded >= {RATE_MARK} photos/s": rate["guarded"] >= RATE_MARK,
    }
    for mark, reached in marks.items():
        print(f"{'reached' if reached else 'MISSED '}  {mark}")
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    figures = {"machine": machine, "costs": by_kind, "rates": rate, "damage": damage, "marks": marks}
    chosen.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""JPEG to PNG: ours beside Pillow, OpenCV, pyvips and ImageMagick, CPU per picture and bytes, in one interleaved run.

Prints a table for each kind of picture, the marks to reach, and 5,000 files through `fusebus convert`; writes
benchmarks/convert.json. Ratios are medians of the runs' own ratios to Pillow's `open().save('PNG')`.

Example: .venv/bin/python tests/benchmarks/convert_bench.py --files 5000
         .venv/bin/python tests/benchmarks/convert_bench.py --photos FOLDER    # your own photographs instead
"""

import argparse
import io
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyvips
import simplejpeg
from PIL import Image

from fusebus.convert import Format, Target, convert
from fusebus.convert.memory import keep_freed_memory
from fusebus.convert.reading import Scratch
from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

SIZES = {"0.3 MP": (640, 480), "2 MP": (1600, 1200), "12 MP": (4000, 3000)}
SPEED_MARKS = {"0.3 MP": 20.0, "2 MP": 25.0, "12 MP": 25.0}
ROUNDS = {"0.3 MP": 4.0, "2 MP": 1.0, "12 MP": 0.5}
"""Of those at 2 MP: a neighbour's burst is as long as all rounds of a small picture."""
BYTES_MARK, SMALL_SPEED_MARK, SMALL_BYTES_MARK = 1.105, 4.5, 1.005
OURS = ("Pillow", "fusebus", "fusebus --small", "decode only")
LIBRARIES = ("pillow", "opencv-python-headless", "pyvips-binary", "simplejpeg", "isal", "deflate", "numpy")
BITS_PER_PIXEL = 2.0
PEER_RUNS = 2  # OpenCV, pyvips, ImageMagick and WebP are far from any mark
BAD_EACH = 100  # one damaged file in so many
Way = Callable[[bytes], bytes]


def scene(size: tuple[int, int], seed: int = 1) -> np.ndarray:
    """Like a daylight photograph: detail falls with its frequency as in nature (1/f), with edges and sensor grain.

    Of grain there is as much as makes its JPEG of quality 90 take 2 bits a pixel: a camera's 12 MP have some 3 MB.
    """
    random = np.random.default_rng(seed)
    width, height = size
    picture = np.full((height, width, 3), 118.0, np.float32)
    edge = 2
    while edge <= max(size):
        layer = random.normal(0, 1, (max(2, height * edge // max(size)), max(2, width * edge // max(size)), 1))
        tint = random.normal(1, 0.15, 3)
        layer = cv2.resize((layer * tint).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        picture += layer * (38 * edge**-0.5)
        edge *= 2
    for _ in range(12):
        x, y = random.integers(0, width), random.integers(0, height)
        w, h = random.integers(width // 20, width // 4), random.integers(height // 20, height // 4)
        picture[y : y + h, x : x + w] += random.normal(0, 25, 3)
    top, left = (height - 480) // 2, (width - 640) // 2
    grain = grain_for(picture[top : top + 480, left : left + 640], random)
    return with_grain(picture, grain, random)


def with_grain(picture: np.ndarray, grain: float, random: np.random.Generator) -> np.ndarray:
    """The picture with noise of this standard deviation."""
    noise = random.standard_normal(picture.shape, np.float32) * np.float32(grain)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def grain_for(part: np.ndarray, random: np.random.Generator) -> float:
    """The standard deviation with which this part takes BITS_PER_PIXEL as a JPEG."""
    low, high = 0.0, 12.0
    for _ in range(8):
        middle = (low + high) / 2
        size = len(encode_jpeg(with_grain(part, middle, random), 90)) * 8 / part.shape[0] / part.shape[1]
        low, high = (middle, high) if size < BITS_PER_PIXEL else (low, middle)
    return (low + high) / 2


PICTURES: dict[str, Callable[[tuple[int, int]], np.ndarray]] = {
    "photograph": scene,
    "drawn board": lambda size: draw_board(100_001, size).image,
}


def pillow(data: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "PNG")
    return out.getvalue()


def opencv(data: bytes) -> bytes:
    return bytes(cv2.imencode(".png", cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))[1])


def libvips(data: bytes) -> bytes:
    return bytes(pyvips.Image.new_from_buffer(data, "", access="sequential").pngsave_buffer())


def image_magick() -> Way | None:
    """Debian's; None where it is not installed."""
    program = next((found for name in ("magick", "convert-im6.q16") if (found := shutil.which(name))), None)
    if program is None:
        return None

    def run(data: bytes) -> bytes:
        return subprocess.run([program, "jpg:-", "png:-"], input=data, capture_output=True, check=True).stdout

    return run


def ways() -> dict[str, Way]:
    scratch = Scratch()
    found: dict[str, Way] = {
        "Pillow": pillow,
        "fusebus": lambda data: convert(data, Target(), scratch).data,
        "fusebus --small": lambda data: convert(data, Target(small=True), scratch).data,
        "fusebus WebP": lambda data: convert(data, Target(format=Format.WEBP), scratch).data,
        "OpenCV": opencv,
        "pyvips": libvips,
        "decode only": lambda data: bytes(simplejpeg.decode_jpeg(data, "RGB", strict=True)[0, 0]),
    }
    if (magick := image_magick()) is not None:
        found["ImageMagick"] = magick
    return found


def cpu_seconds() -> float:
    """Of this process with all of its threads, and of its children that ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measured(data: bytes, runs: int) -> dict[str, dict[str, float]]:
    """Each way's CPU in ms, its ratio to Pillow in the same round, and its bytes against Pillow's."""
    chosen = ways()
    made = {name: way(data) for name, way in chosen.items()}
    taken: dict[str, list[float]] = {name: [] for name in chosen}
    for number in range(runs):
        for name, way in chosen.items():
            if number >= PEER_RUNS and name not in OURS:
                continue
            calls = 1 if name not in OURS or name == "Pillow" else 4
            before = cpu_seconds()
            for _ in range(calls):
                way(data)
            taken[name].append((cpu_seconds() - before) / calls)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    for name in ("fusebus", "fusebus --small", "fusebus WebP"):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(made[name]))), expected), f"{name} changed a pixel"
    return {
        name: {
            "cpu_ms": round(statistics.median(seconds) * 1e3, 2),
            "times_faster": round(statistics.median(p / s for p, s in zip(taken["Pillow"], seconds, strict=False)), 2),
            "bytes": round(len(made[name]) / len(made["Pillow"]), 4),
        }
        for name, seconds in taken.items()
    }


def marks_of(size: str, figures: dict[str, dict[str, float]]) -> list[tuple[str, float, float, bool]]:
    """What was to be reached, the mark, what was, and whether it is."""
    ours, small = figures["fusebus"], figures["fusebus --small"]
    return [
        ("times Pillow's speed", SPEED_MARKS[size], ours["times_faster"], ours["times_faster"] >= SPEED_MARKS[size]),
        ("of Pillow's bytes", BYTES_MARK, ours["bytes"], ours["bytes"] <= BYTES_MARK),
        ("--small, speed", SMALL_SPEED_MARK, small["times_faster"], small["times_faster"] >= SMALL_SPEED_MARK),
        ("--small, bytes", SMALL_BYTES_MARK, small["bytes"], small["bytes"] <= SMALL_BYTES_MARK),
    ]


def bulk(files: int, workers: int) -> dict[str, Any]:
    """`fusebus convert` as a process over so many files of 0.3 MP, one in a hundred damaged; then the same again."""
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder) / "photos", Path(folder) / "out"
        photos.mkdir()
        pictures = [encode_jpeg(draw_board(200_000 + seed, SIZES["0.3 MP"]).image, 90) for seed in range(10)]
        for number in range(files):
            data = pictures[number % 10] + number.to_bytes(4, "big")  # behind the end: other bytes, same pixels
            bad = number % BAD_EACH == BAD_EACH // 2
            (photos / f"{number:05}.jpg").write_bytes(data[: len(data) // 2] if bad else data)
        first, peaks = command(photos, out, workers)
        again, _ = command(photos, out, workers)
    reasons = {failure["reason"] for failure in first["failed"]}
    return {
        "files": files,
        "workers": workers,
        "converted": first["converted"],
        "failed": len(first["failed"]),
        "reasons": sorted(reasons),
        "seconds": first["seconds"],
        "per_second": round(first["converted"] / first["seconds"], 1),
        "rss_mb_after_a_tenth": round(peaks[len(peaks) // 10]) if peaks else 0,
        "rss_mb_at_the_end": round(peaks[-1]) if peaks else 0,
        "exit_code": first["exit_code"],
        "again_seconds": again["seconds"],
        "again_skipped": again["skipped"],
        "complete": first["converted"] == files - files // BAD_EACH and again["skipped"] == first["converted"],
    }


def command(photos: Path, out: Path, workers: int) -> tuple[dict[str, Any], list[float]]:
    arguments = [str(Path(sys.executable).parent / "fusebus"), "convert", str(photos), str(out), "--json"]
    process = subprocess.Popen([*arguments, "--workers", str(workers)], stdout=subprocess.PIPE)
    peaks: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            if found:
                peaks.append(int(found[1]) / 1e3)

    thread = threading.Thread(target=watch)
    thread.start()
    text = process.communicate()[0]
    done.set()
    thread.join()
    return {**json.loads(text), "exit_code": process.returncode}, peaks


def own_photographs(folder: Path, runs: int) -> None:
    """JPEG files as they are: ours beside Pillow, each and in the median."""
    taken: list[dict[str, float]] = []
    for path in sorted(folder.glob("*.jpg")):
        data = path.read_bytes()
        width, height = Image.open(path).size
        figures = measured(data, runs)
        taken.append(figures["fusebus"] | {"small_times": figures["fusebus --small"]["times_faster"]})
        print(
            f"{path.name:30} {width * height / 1e6:5.1f} MP {len(data) * 8 / width / height:4.1f} bits a pixel"
            f" {figures['Pillow']['cpu_ms']:8.1f} ms Pillow {taken[-1]['cpu_ms']:8.1f} ms"
            f" {taken[-1]['times_faster']:6.1f} x {taken[-1]['bytes']:6.3f} bytes"
        )
    for name in ("times_faster", "bytes", "small_times"):
        values = sorted(one[name] for one in taken)
        print(f"{name:12} median {statistics.median(values):.2f}, {values[0]:.2f} to {values[-1]:.2f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=5, help="rounds at 2 MP; 0.3 MP has more, 12 MP fewer")
    arguments.add_argument("--files", type=int, default=1_000, help="files of the bulk run; 0 leaves it out")
    arguments.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "benchmarks/convert.json")
    arguments.add_argument("--photos", type=Path, help="measure the .jpg files of this folder instead; writes no file")
    chosen = arguments.parse_args()
    cv2.setNumThreads(1)
    keep_freed_memory()  # as the command does: it serves all ways here
    if chosen.photos is not None:
        if not any(chosen.photos.glob("*.jpg")):
            arguments.error(f"{chosen.photos} has no .jpg files: name a folder with photographs")
        own_photographs(chosen.photos, chosen.runs)
        return
    tables: dict[str, Any] = {}
    missed = 0
    for kind, draw in PICTURES.items():
        for size, edges in SIZES.items():
            data = encode_jpeg(draw(edges), 90)
            began = time.perf_counter()
            figures = measured(data, max(3, round(chosen.runs * ROUNDS[size])))
            tables[f"{kind} {size}"] = figures
            seconds = time.perf_counter() - began
            print(f"\n{kind}, {size}, {len(data) / edges[0] / edges[1] * 8:.1f} bits a pixel as JPEG ({seconds:.0f} s)")
            for name, row in figures.items():
                print(f"  {name:16} {row['cpu_ms']:9.2f} ms {row['times_faster']:8.2f} x {row['bytes']:8.3f} bytes")
            for name, mark, reached, passed in marks_of(size, figures):
                missed += not passed
                print(
                    f"  {'pass       ' if passed else 'FALLS SHORT'} {name:22} mark {mark:6.3f}  reached {reached:.3f}"
                )
    bulk_figures = bulk(chosen.files, chosen.workers) if chosen.files else {}
    print("\nbulk:", json.dumps(bulk_figures))
    print(f"{missed} marks fall short" if missed else "all marks reached")
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    libraries = {name: version(name) for name in LIBRARIES}
    figures_file = {"machine": machine, "libraries": libraries, "figures": tables, "bulk": bulk_figures}
    chosen.out.write_text(json.dumps(figures_file, indent=1) + "\n")


if __name__ == "__main__":
    main()

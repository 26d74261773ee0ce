"""The room that a picture's conversion asks for is as much as it takes."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fusebus.convert.memory import needed

WIDTH, HEIGHT = 2_400, 1_800
MEASURE = """
import re, sys
from fusebus.convert import Format, Target, convert
small, data = open(sys.argv[1], "rb").read(), open(sys.argv[2], "rb").read()
target = Target(format=Format(sys.argv[3]), small=sys.argv[4] == "small")
convert(small, target)  # what is loaded once is nobody's share
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])
before = kilobytes("VmRSS")
convert(data, target)
print((kilobytes("VmHWM") - before) * 1024)
"""


def picture(width: int, height: int, kind: str) -> bytes:
    """Smooth with noise, as photographs are."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 0.01, (height, width)).astype(np.float32)
    planes = [0.5 + 0.3 * np.sin(x / 90 + shift) * np.cos(y / 70) + noise for shift in range(4)]
    deep = kind.endswith("16")
    levels = np.clip(np.stack(planes, 2) * (65_535 if deep else 255), 0, 65_535 if deep else 255)
    pixels = levels.astype(np.uint16 if deep else np.uint8)
    suffix = kind.removesuffix("16")
    ok, data = cv2.imencode(f".{suffix}", pixels if kind == "png16" else pixels[:, :, :3])
    assert ok
    return data.tobytes()


@pytest.mark.parametrize(
    ("kind", "target", "size"),
    [
        ("jpg", "png", "fast"),
        ("jpg", "png", "small"),
        ("jpg", "webp", "fast"),
        ("png", "png", "fast"),
        ("png", "png", "small"),
        ("png", "webp", "fast"),
        ("png16", "png", "fast"),
        ("png16", "png", "small"),
        ("tiff16", "png", "fast"),
        ("tiff", "png", "small"),
    ],
)
def test_a_conversion_takes_no_more_memory_than_it_asked_for(kind: str, target: str, size: str, tmp_path: Path) -> None:
    data = picture(WIDTH, HEIGHT, kind)
    (tmp_path / "large").write_bytes(data)
    (tmp_path / "small").write_bytes(picture(64, 48, kind))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large"), target, size]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert WIDTH * HEIGHT <= taken <= needed(data, target)

"""The room that a picture's conversion asks for is as much as it takes, and not many times more."""

import io
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import pyvips
from picture_bytes import chunk, exif, header, png_of, with_chunks
from PIL import Image

from fusebus.convert.conversion import Format
from fusebus.convert.memory import DEEP_TO_PNG_BYTES, JPEG_TO_PNG_BYTES, TO_PNG_BYTES, TO_WEBP_BYTES, needed
from fusebus.convert.settings import ConvertSettings
from fusebus.host import SettingsError, load_settings

WIDTH, HEIGHT = 1_600, 1_200
TIMEOUT_SECONDS = 60
MEASURE = """
import re, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from fusebus.convert import Format, Target, convert
from fusebus.convert.memory import keep_freed_memory
from fusebus.convert.reading import Scratch
keep_freed_memory()
small, data = (Path(name).read_bytes() for name in sys.argv[1:3])
target, scratch = Target(format=Format(sys.argv[3]), small=sys.argv[4] == "small"), Scratch()
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
with ThreadPoolExecutor(1) as codec:
    codec.submit(convert, small, target, scratch).result()  # what is loaded once is nobody's share
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark is the present one
    before = kilobytes("VmRSS")
    codec.submit(convert, data, target, scratch).result()
print((kilobytes("VmHWM") - before) * 1024)
"""
"""As the command and the worker convert: in a thread, with its scratch memory, keeping what is freed."""


def noise(width: int, height: int, *, deep: bool = False) -> np.ndarray:
    """RGBA (height, width, 4): nothing takes more room than what can't be packed."""
    dtype = np.uint16 if deep else np.uint8
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (height, width, 4), dtype, endpoint=True)


def by_pillow(kind: str, mode: str, *, turned: bool = False, **options: object) -> Callable[[int, int], bytes]:
    """Saves it in that mode; `turned`: with EXIF orientation 6."""

    def made(width: int, height: int) -> bytes:
        tags, out = Image.Exif(), io.BytesIO()
        if turned:
            tags[274] = 6
        image = Image.fromarray(noise(width, height))
        (image if mode == "RGBA" else image.convert("RGB").convert(mode)).save(out, kind, exif=tags, **options)
        return out.getvalue()

    return made


def deep_png(width: int, height: int) -> bytes:
    """RGBA of 16 bits, with EXIF orientation 6."""
    ok, data = cv2.imencode(".png", noise(width, height, deep=True))
    assert ok
    return with_chunks(data.tobytes(), chunk(b"eXIf", exif(6)))


def deep_tiff(width: int, height: int, *, channels: int, interpretation: str = "rgb16", **options: object) -> bytes:
    """Grey, RGB, RGBA or CMYK of 16 bits."""
    pixels = np.ascontiguousarray(noise(width, height, deep=True)[:, :, :channels])
    image = pyvips.Image.new_from_array(pixels).copy(interpretation=interpretation)
    return bytes(image.tiffsave_buffer(**options))


def deep_lab_tiff(width: int, height: int) -> bytes:
    """CIELAB of 16 bits."""
    pixels = np.ascontiguousarray(noise(width, height)[:, :, :3])
    return bytes(pyvips.Image.new_from_array(pixels).colourspace("labs").tiffsave_buffer())


MADE: dict[str, Callable[[int, int], bytes]] = {
    "JPEG": by_pillow("JPEG", "RGB", quality=90),
    "JPEG, turned": by_pillow("JPEG", "RGB", turned=True, quality=90),
    "JPEG, CMYK": by_pillow("JPEG", "CMYK", quality=90),
    "JPEG, progressive": by_pillow("JPEG", "RGB", quality=90, progressive=True),
    "JPEG, CMYK, progressive": by_pillow("JPEG", "CMYK", quality=90, progressive=True),
    "PNG": by_pillow("PNG", "RGB", compress_level=1),
    "PNG, RGBA, turned": by_pillow("PNG", "RGBA", turned=True, compress_level=1),
    "PNG, a transparent colour": by_pillow("PNG", "RGB", transparency=(1, 2, 3), compress_level=1),
    "WebP": by_pillow("WEBP", "RGB", quality=80, method=0),
    "WebP, lossless": by_pillow("WEBP", "RGB", lossless=True, method=0),
    "WebP, RGBA, turned": by_pillow("WEBP", "RGBA", turned=True, quality=80, method=0),
    "GIF": by_pillow("GIF", "P"),
    "TIFF": by_pillow("TIFF", "RGB"),
    "TIFF, CMYK": by_pillow("TIFF", "CMYK", compression="tiff_lzw"),
    "TIFF, PackBits": by_pillow("TIFF", "RGB", compression="packbits"),
    "TIFF, JPEG": by_pillow("TIFF", "RGB", compression="jpeg"),
    "BMP": by_pillow("BMP", "RGB"),
    "PNG, 16 bits, turned": deep_png,
    "TIFF, 16 bits": partial(deep_tiff, channels=3),
    "TIFF, 16 bits, RGBA": partial(deep_tiff, channels=4, compression="lzw"),
    "TIFF, 16 bits, grey": partial(deep_tiff, channels=1, interpretation="grey16"),
    "TIFF, 16 bits, CMYK": partial(deep_tiff, channels=4, interpretation="cmyk"),
    "TIFF, 16 bits, CMYK, profile": partial(deep_tiff, channels=4, interpretation="cmyk", profile="cmyk"),
    "TIFF, 16 bits, CIELAB": deep_lab_tiff,
    "BigTIFF, 16 bits": partial(deep_tiff, channels=3, bigtiff=True),
}


@lru_cache(maxsize=1)
def picture(kind: str) -> bytes:
    """Of the size that is measured."""
    return MADE[kind](WIDTH, HEIGHT)


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets the highest mark of memory when told"
)
@pytest.mark.parametrize(
    ("kind", "target", "size", "least"),
    [
        ("JPEG", "png", "fast", 0.3),
        ("JPEG", "png", "small", 0.4),
        ("JPEG, turned", "png", "small", 0.4),
        ("JPEG, CMYK", "png", "small", 0.6),
        ("JPEG, CMYK, progressive", "png", "small", 0.5),
        ("JPEG, progressive", "png", "small", 0.5),
        ("JPEG", "webp", "fast", 0.4),
        ("JPEG, turned", "webp", "small", 0.7),
        ("PNG", "png", "small", 0.3),
        ("PNG, RGBA, turned", "png", "small", 0.4),
        ("PNG, a transparent colour", "png", "small", 0.4),
        ("PNG", "webp", "small", 0.7),
        ("GIF", "webp", "small", 0.6),
        ("WebP", "png", "small", 0.5),
        ("WebP, RGBA, turned", "png", "small", 0.6),
        ("WebP, lossless", "png", "fast", 0.7),
        ("WebP, lossless", "webp", "small", 0.7),
        ("TIFF", "png", "small", 0.3),
        ("TIFF, CMYK", "png", "fast", 0.3),
        ("BMP", "png", "small", 0.3),
        ("PNG, 16 bits, turned", "png", "fast", 0.4),
        ("PNG, 16 bits, turned", "png", "small", 0.5),
        ("TIFF, 16 bits", "png", "small", 0.4),
        ("TIFF, 16 bits, RGBA", "png", "small", 0.6),
        ("BigTIFF, 16 bits", "png", "small", 0.4),
        ("TIFF, PackBits", "png", "small", 0.3),
        ("TIFF, JPEG", "png", "small", 0.3),
        ("TIFF, 16 bits, grey", "png", "small", 0.1),
        ("TIFF, 16 bits, CMYK", "png", "small", 0.4),
        ("TIFF, 16 bits, CMYK, profile", "png", "small", 0.4),
        ("TIFF, 16 bits, CIELAB", "png", "small", 0.3),
    ],
)
def test_a_conversion_takes_what_it_asked_for(kind: str, target: str, size: str, least: float, tmp_path: Path) -> None:
    data = picture(kind)
    (tmp_path / "large").write_bytes(data)
    (tmp_path / "small").write_bytes(MADE[kind](64, 48))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large"), target, size]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    asked = needed(data, Format(target))
    assert least * asked <= int(done.stdout) <= asked


@pytest.mark.parametrize(
    ("kind", "target", "bytes_per_pixel"),
    [
        ("JPEG", "png", JPEG_TO_PNG_BYTES),
        ("PNG", "png", TO_PNG_BYTES),
        ("TIFF", "png", TO_PNG_BYTES),
        ("PNG, 16 bits, turned", "png", DEEP_TO_PNG_BYTES),
        ("TIFF, 16 bits", "png", DEEP_TO_PNG_BYTES),
        ("BigTIFF, 16 bits", "png", DEEP_TO_PNG_BYTES),
        ("TIFF, 16 bits, CMYK", "png", DEEP_TO_PNG_BYTES),
        ("TIFF, 16 bits, CIELAB", "png", DEEP_TO_PNG_BYTES),
        ("JPEG", "webp", TO_WEBP_BYTES),
        ("PNG, 16 bits, turned", "webp", TO_WEBP_BYTES),
    ],
)
def test_what_is_asked_for_follows_from_the_header(kind: str, target: str, bytes_per_pixel: int) -> None:
    assert needed(MADE[kind](64, 48), Format(target)) == 64 * 48 * bytes_per_pixel


def test_too_little_memory_for_the_worker_is_refused_with_the_way_out() -> None:
    assert load_settings(ConvertSettings, "convert", {}).memory_megabytes == 0
    with pytest.raises(SettingsError, match="MEMORY_MEGABYTES: 63 MB are too few: 0, or at least 64"):
        load_settings(ConvertSettings, "convert", {"FUSEBUS_CONVERT_MEMORY_MEGABYTES": "63"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MM\x00\x2a",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF\x04\x00\x00\x00WEBP",
        b"no picture at all",
        png_of(header(10_001, 10_000), b""),
    ],
)
def test_without_a_header_nothing_is_asked_for(data: bytes) -> None:
    assert needed(data, Format.PNG) == 0

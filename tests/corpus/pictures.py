"""The corpus: several hundred small files over every kind that a stranger may send, each with the verdict it deserves.

Made by these modules, the same bytes every time. To look at them:

    .venv/bin/python tests/corpus/pictures.py FOLDER     writes the files and expected.json
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import PIL
from attacks import attacks
from cases import COMPLEX, DAMAGED, HEIGHT, NO_IMAGE, OTHER, PIXELS, WIDTH, Case
from picture_bytes import (
    SECRET,
    blotted,
    board,
    chunk,
    exif,
    frame,
    header,
    interlaced_png,
    png_of,
    repacked,
    resized_frame,
    riff,
    saved,
    segment,
    vp8x,
    with_chunks,
    with_segments,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from unusual import unusual

CACHE = Path(os.environ.get("FUSEBUS_CACHE", Path(__file__).parents[2] / ".cache" / "fusebus")).resolve()


def corpus() -> list[Case]:
    """All cases; names are unique.

    Making them takes seconds, and each worker of a test run needs them: they are kept until what makes them changes.
    """
    kept = CACHE / f"corpus-{_makers()}.pickle"
    with suppress(FileNotFoundError):
        return list(pickle.loads(kept.read_bytes()))
    made = _made()
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(pickle.dumps(made))
    for old in CACHE.glob("corpus-*.pickle"):  # each has 200 MB
        old.unlink(missing_ok=True)
    unfinished.replace(kept)
    return made


def _makers() -> str:
    """A digest of all that the files' bytes depend on: our own modules and the libraries that write pictures."""
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    versions = " ".join((sys.version, cv2.__version__, np.__version__, PIL.__version__))
    return hashlib.sha256(b"\0".join([*sources, versions.encode()])).hexdigest()[:16]


def _made() -> list[Case]:
    made = [*sound(), *metadata(), *several(), *noted(), *cut(), *blots(), *jpeg_lies(), *png_lies(), *webp_lies()]
    return [*made, *bombs(), *strangers(), *unusual(), *attacks()]


@cache
def bases() -> dict[str, bytes]:
    """Sound files from which others are made."""
    picture = board(WIDTH, HEIGHT)
    return {
        "baseline.jpg": saved(picture, "JPEG", quality=90),
        "progressive.jpg": saved(picture, "JPEG", quality=90, progressive=True),
        "grey.jpg": saved(picture, "JPEG", "L", quality=90),
        "cmyk.jpg": saved(picture, "JPEG", "CMYK", quality=90),
        "rgb.png": saved(picture, "PNG"),
        "rgba.png": saved(picture, "PNG", "RGBA"),
        "lossy.webp": saved(picture, "WEBP", quality=85, method=0),
        "lossless.webp": saved(picture, "WEBP", lossless=True, method=0),
    }


def sound() -> Iterator[Case]:
    for name, data in bases().items():
        yield Case(f"sound {name}", data, size=(WIDTH, HEIGHT))
    for width, height in ((1, 1), (7, 5), (17, 33), (1, 900), (900, 1), (1600, 1200)):
        for image_format in ("JPEG", "PNG", "WEBP"):
            data = saved(board(width, height), image_format)
            yield Case(f"size {width}x{height} {image_format}", data, size=(width, height))
    picture = board(WIDTH, HEIGHT, 2)
    for quality in (5, 50, 100):
        for sampling in (0, 1, 2):
            for progressive in (False, True):
                data = saved(picture, "JPEG", quality=quality, subsampling=sampling, progressive=progressive)
                yield Case(f"jpeg q{quality} s{sampling} p{progressive:d}", data, size=(WIDTH, HEIGHT))
    for blocks in (1, 7, 40):
        yield Case(
            f"jpeg restarts {blocks}", saved(picture, "JPEG", restart_marker_blocks=blocks), size=(WIDTH, HEIGHT)
        )
    yield Case("jpeg optimised", saved(picture, "JPEG", optimize=True), size=(WIDTH, HEIGHT))
    yield Case("jpeg rgb", saved(picture, "JPEG", keep_rgb=True), size=(WIDTH, HEIGHT))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = (
            Image.fromarray(picture[:, :, 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(picture)
        )
        yield Case(f"png {mode}", saved(image, "PNG", mode), size=(WIDTH, HEIGHT))
    yield Case("png 48 bit", bytes(cv2.imencode(".png", picture.astype(np.uint16) * 257)[1]), size=(WIDTH, HEIGHT))
    yield Case("png interlaced", interlaced_png(picture), size=(WIDTH, HEIGHT))
    yield Case("png interlaced 3x3", interlaced_png(picture[:3, :3]), size=(3, 3))
    yield Case("png palette with a clear colour", saved(picture, "PNG", "P", transparency=0), size=(WIDTH, HEIGHT))
    yield Case("png colour key", with_chunks(bases()["rgb.png"], chunk(b"tRNS", bytes(6))), size=(WIDTH, HEIGHT))
    for quality in (5, 50, 100):
        for method in (0, 4):
            data = saved(picture, "WEBP", quality=quality, method=method)
            yield Case(f"webp q{quality} m{method}", data, size=(WIDTH, HEIGHT))
    for lossless in (False, True):
        clear = np.dstack([picture, picture[:, :, 0]])
        data = saved(Image.fromarray(clear), "WEBP", "RGBA", lossless=lossless, method=0)
        yield Case(f"webp clear lossless {lossless}", data, size=(WIDTH, HEIGHT))
    for flat in ("JPEG", "PNG", "WEBP"):
        grey = np.full((HEIGHT, WIDTH, 3), 127, np.uint8)
        yield Case(f"flat {flat}", saved(grey, flat), size=(WIDTH, HEIGHT), quality=("blurred",))
    yield Case("flat lossless", saved(grey, "WEBP", lossless=True), size=(WIDTH, HEIGHT))


def metadata() -> Iterator[Case]:
    """Sound pictures full of what must not travel on."""
    picture, kept = board(WIDTH, HEIGHT, 3), ("2026-03-04T05:06:07+01:00", "Van Cam 3")
    for turn in range(1, 9):
        size = (WIDTH, HEIGHT) if turn < 5 else (HEIGHT, WIDTH)
        for image_format in ("JPEG", "PNG", "WEBP"):
            data = saved(picture, image_format, exif=exif(turn))
            yield Case(f"turned {turn} {image_format}", data, size=size, kept=kept)
    base = bases()
    jpeg, png, webp = base["baseline.jpg"], base["rgb.png"], base["lossy.webp"]
    xmp = b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta>" + SECRET + b"</x:xmpmeta>"
    for name, part in {
        "xmp": segment(0xE1, xmp),
        "icc": segment(0xE2, b"ICC_PROFILE\x00\x01\x01" + SECRET * 20),
        "iptc": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04" + SECRET),
        "comment": segment(0xFE, SECRET),
        "php": segment(0xFE, b"<?php system($_GET[0]); ?>" + SECRET),
        "html": segment(0xFE, b"<html><script>alert(1)</script>" + SECRET),
        "unknown": segment(0xEF, SECRET * 1_000),
        "many": segment(0xFE, SECRET) * 1_000,
        "fill bytes": b"\xff" * 50,
        "thumbnail": segment(0xE1, b"Exif\x00\x00MM\x00*" + bytes(40) + saved(board(16, 16), "JPEG") + SECRET),
    }.items():
        yield Case(f"jpeg with {name}", with_segments(jpeg, part), size=(WIDTH, HEIGHT))
    for name, tail in {
        "zeros": bytes(5_000),
        "a film": b"\x00\x00\x00\x18ftypmp42" + SECRET * 100,
        "an archive": b"PK\x03\x04" + SECRET * 100,
        "a page": b"<html>" + SECRET,
        "a picture": jpeg,
    }.items():
        for file, data in (("jpg", jpeg), ("png", png), ("webp", webp)):
            yield Case(f"{file} with {name} behind it", data + tail, size=(WIDTH, HEIGHT))
    info = PngInfo()
    info.add_text("Comment", SECRET.decode())
    info.add_text("Zipped", SECRET.decode() * 50, zip=True)
    info.add_itxt("International", SECRET.decode())
    yield Case("png texts", saved(picture, "PNG", pnginfo=info, icc_profile=SECRET * 9), size=(WIDTH, HEIGHT))
    bomb = chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(20_000_000)))
    yield Case("png text bomb", with_chunks(png, bomb), size=(WIDTH, HEIGHT))
    profile = chunk(b"iCCP", b"x\x00\x00" + zlib.compress(bytes(20_000_000)))
    yield Case("png profile bomb", with_chunks(png, profile), size=(WIDTH, HEIGHT))
    yield Case("png private chunk", with_chunks(png, chunk(b"prVt", SECRET)), size=(WIDTH, HEIGHT))
    extended = saved(picture, "WEBP", xmp=SECRET, icc_profile=SECRET, exif=exif(6))
    yield Case("webp extended", extended, size=(HEIGHT, WIDTH), kept=kept)
    loop = (
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + struct.pack("<H", 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + bytes(4)
    )
    for name, block in {
        "loop": loop,
        "far": b"Exif\x00\x00II*\x00\xff\xff\xff\x7f",
        "cut": b"Exif\x00\x00MM\x00*\x00",
        "noise": b"Exif\x00\x00" + np.random.default_rng(1).bytes(5_000),
        "orientation 9": exif(9, taken="", model=""),
        "no clock": exif(1, taken="0000:00:00 00:00:00", model=""),
        "hostile text": exif(1, taken="2026:13:45 99:99:99", model="\u202e\x1b[31m\n=cmd|' /C calc'!A0"),
    }.items():
        camera = "?[31m=cmd|' /C calc'!A0" if name == "hostile text" else ""
        yield Case(f"exif {name}", with_segments(jpeg, segment(0xE1, block)), size=(WIDTH, HEIGHT), kept=("", camera))
    long = exif(1, model="M" * 5_000)
    moment = "2026-03-04T05:06:07+01:00"
    yield Case("exif long", with_segments(jpeg, segment(0xE1, long)), size=(WIDTH, HEIGHT), kept=(moment, "M" * 60))


def several() -> Iterator[Case]:
    """Files of more than one picture: the first counts."""
    red, blue = (np.full((HEIGHT, WIDTH, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 30, 200)))
    more = {"save_all": True, "append_images": [Image.fromarray(blue)] * 3}
    for image_format in ("MPO", "PNG", "WEBP"):
        data = saved(red, image_format, **more)
        yield Case(f"several {image_format}", data, size=(WIDTH, HEIGHT), colour=(200, 30, 30))
    still = saved(red[:100, :200], "WEBP", lossless=True)
    animated = riff(vp8x(400, 300, 2), (b"ANIM", bytes(6)), frame(20, 30, 200, 100, still))
    yield Case("webp frame on a larger canvas", animated, size=(400, 300))
    outside = riff(vp8x(400, 300, 2), (b"ANIM", bytes(6)), frame(300, 30, 200, 100, still))
    yield Case("webp frame outside", outside, DAMAGED)
    yield Case("webp no frame", riff(vp8x(400, 300, 2), (b"ANIM", bytes(6))), DAMAGED)
    small = saved(red[:8, :8], "WEBP", lossless=True)
    many = riff(vp8x(8, 8, 2), (b"ANIM", bytes(6)), *[frame(0, 0, 8, 8, small)] * 1_500)
    yield Case("webp 1500 frames", many, COMPLEX)
    control = [chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, 8, 8, 0, 0, 1, 10, 0, 0)) for n in range(1_500)]
    yield Case("png 1500 frames", with_chunks(bases()["rgb.png"], *control), COMPLEX)


def noted() -> Iterator[Case]:
    """Pictures that are hard to judge: accepted, with a warning."""
    picture = board(800, 600, 4)
    for file in ("JPEG", "PNG", "WEBP"):
        blurred = cv2.GaussianBlur(picture, (0, 0), 9)
        yield Case(f"blurred {file}", saved(blurred, file), size=(800, 600), quality=("blurred",))
        yield Case(f"dark {file}", saved(picture // 8, file), size=(800, 600), quality=("dark",))
        burnt = picture.copy()
        burnt[100:400, 100:500] = 255
        yield Case(f"glare {file}", saved(burnt, file), size=(800, 600), quality=("glare",))
        yield Case(f"small {file}", saved(picture[:200, :300], file), size=(300, 200), quality=("too_small",))
        yield Case(f"fine {file}", saved(picture, file), size=(800, 600), quality=())


def cut() -> Iterator[Case]:
    for name, data in bases().items():
        for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
            yield Case(f"cut at {share} {name}", data[: int(len(data) * share)], DAMAGED)
        last = {"jpg": 2, "png": 12, "ebp": 6}[name[-3:]]
        yield Case(f"no end {name}", data[:-last], DAMAGED)
    for name, data in ((name, bases()[name]) for name in ("baseline.jpg", "rgba.png", "lossy.webp")):
        for length in (1, 2, 3, 7, 11):
            reasons = (*NO_IMAGE, *DAMAGED)
            yield Case(f"first {length} of {name}", data[:length], reasons)
    yield Case("empty", b"", ("empty",))


def blots() -> Iterator[Case]:
    """A bad memory card: stretches of zeros or of something else. Lossless WebP has nothing that could tell."""
    for name, data in bases().items():
        for at in (0.3, 0.5, 0.8):
            for length in (512, 4_096):
                yield Case(f"zeros {length} at {at} {name}", blotted(data, at, length), DAMAGED)
                if name != "lossless.webp":
                    seed = int(at * 10) + length
                    yield Case(f"noise {length} at {at} {name}", blotted(data, at, length, seed), DAMAGED)


def jpeg_lies() -> Iterator[Case]:
    jpeg, progressive = bases()["baseline.jpg"], bases()["progressive.jpg"]
    for name, data in (("baseline", jpeg), ("progressive", progressive)):
        for width, height in ((WIDTH, 2 * HEIGHT), (WIDTH // 2, HEIGHT), (WIDTH, HEIGHT // 2), (WIDTH + 16, HEIGHT)):
            yield Case(f"{name} says {width}x{height}", resized_frame(data, width, height), DAMAGED)
        yield Case(f"{name} says 0x0", resized_frame(data, 0, 0), DAMAGED)
        yield Case(f"{name} says 65535x65535", resized_frame(data, 65_535, 65_535), PIXELS)
        yield Case(f"{name} says 65535x1", resized_frame(data, 65_535, 1), PIXELS)
        yield Case(f"{name} behind a blank", b" " + data, NO_IMAGE)
    at = jpeg.index(b"\xff\xc0")
    frame_header = jpeg[at : at + 19]
    for marker in (0xC3, 0xC5, 0xC7, 0xCB, 0xCF):
        yield Case(f"jpeg process {marker:x}", jpeg[: at + 1] + bytes([marker]) + jpeg[at + 2 :], OTHER)
    yield Case("jpeg 12 bit", jpeg[: at + 4] + b"\x0c" + jpeg[at + 5 :], OTHER)
    other = resized_frame(frame_header, 64, 64)
    yield Case("jpeg two frames", jpeg[:at] + other + jpeg[at:], DAMAGED)
    yield Case("jpeg no frame", jpeg[:at] + jpeg[at + 19 :], DAMAGED)
    tables = jpeg.index(b"\xff\xc4")
    yield Case("jpeg wrong huffman", jpeg[: tables + 5] + b"\xff" * 16 + jpeg[tables + 21 :], DAMAGED)
    quantiser = jpeg.index(b"\xff\xdb")
    yield Case("jpeg no quantiser", jpeg[:quantiser] + jpeg[quantiser + 2 + 67 :], (*DAMAGED, *NO_IMAGE))
    yield Case("jpeg long segment", with_segments(jpeg, b"\xff\xe5\xff\xff"), DAMAGED)
    yield Case("jpeg only markers", b"\xff\xd8" + b"\xff" * 3_000_000, (*DAMAGED, *NO_IMAGE))
    scan = jpeg.index(b"\xff\xda")
    yield Case("jpeg no scan", jpeg[:scan] + b"\xff\xd9", DAMAGED)
    yield Case("jpeg scan without data", jpeg[: scan + 14] + b"\xff\xd9", DAMAGED)


def png_lies() -> Iterator[Case]:
    png = bases()["rgb.png"]

    def headed(content: bytes) -> bytes:
        return repacked(png, lambda kind, old: content if kind == b"IHDR" else old)

    for width, height in ((WIDTH, 2 * HEIGHT), (WIDTH, HEIGHT // 2), (WIDTH // 2, HEIGHT), (WIDTH + 1, HEIGHT)):
        yield Case(f"png says {width}x{height}", headed(header(width, height)), DAMAGED)
    for width, height in ((0, 5), (2**31 - 1, 2**31 - 1), (10_001, 10_000), (70_000, 10)):
        yield Case(f"png says {width}x{height}", headed(header(width, height)), PIXELS if width else DAMAGED)
    for depth, colour, turn in ((8, 7, 0), (3, 2, 0), (8, 2, 9), (16, 3, 0), (8, 3, 0), (8, 0, 0), (8, 6, 0)):
        data = headed(header(WIDTH, HEIGHT, depth, colour, turn))
        yield Case(f"png kind {depth} {colour} {turn}", data, DAMAGED)
    row = b"\x00" + bytes(300)
    for name, raw in {"short": row * 99, "long": row * 101, "odd filter": b"\x09" + bytes(300) + row * 99}.items():
        yield Case(f"png rows {name}", png_of(header(100, 100), raw), DAMAGED)
    yield Case("png inflates to 100 MB", png_of(header(100, 100), bytes(100_000_000)), DAMAGED)
    yield Case("png no palette", png_of(header(8, 8, 8, 3), (b"\x00" + bytes(8)) * 8), DAMAGED)
    broken = bytearray(zlib.compress(row * 100))
    broken[-1] ^= 1
    parts = chunk(b"IHDR", header(100, 100)) + chunk(b"IDAT", bytes(broken)) + chunk(b"IEND", b"")
    yield Case("png wrong adler", png[:8] + parts, DAMAGED)
    yield Case("png wrong crc", png[:-20] + bytes([png[-20] ^ 1]) + png[-19:], DAMAGED)
    yield Case("png no data", repacked(png, lambda kind, old: None if kind == b"IDAT" else old), DAMAGED)
    yield Case("png no header", repacked(png, lambda kind, old: None if kind == b"IHDR" else old), DAMAGED)
    yield Case("png no end", repacked(png, lambda kind, old: None if kind == b"IEND" else old), DAMAGED)
    yield Case("png endless chunk", png[:33] + b"\xff\xff\xff\xffteXt" + png[33:], DAMAGED)
    yield Case("png 25000 chunks", with_chunks(png, chunk(b"prVt", b"") * 25_000), COMPLEX)
    lines = png[:8].replace(b"\r\n", b"\n") + png[8:]
    yield Case("png through a text transfer", lines, NO_IMAGE)


def webp_lies() -> Iterator[Case]:
    for name in ("lossy", "lossless"):
        webp = bases()[f"{name}.webp"]
        picture = (webp[12:16], webp[20:])
        yield Case(f"webp {name} riff too long", webp[:4] + struct.pack("<I", 10**9) + webp[8:], DAMAGED)
        yield Case(f"webp {name} chunk too long", webp[:16] + struct.pack("<I", 10**9) + webp[20:], DAMAGED)
        yield Case(f"webp {name} other canvas", riff(vp8x(WIDTH, 2 * HEIGHT), picture), DAMAGED)
        yield Case(f"webp {name} huge canvas", riff(vp8x(16_000, 16_000), picture), PIXELS)
        yield Case(f"webp {name} second picture", riff(picture, picture), size=(WIDTH, HEIGHT))
        yield Case(f"webp {name} 25000 chunks", riff(vp8x(WIDTH, HEIGHT), *[(b"prVt", b"")] * 25_000, picture), COMPLEX)
        yield Case(f"webp {name} no picture", riff(vp8x(WIDTH, HEIGHT)), DAMAGED)
        yield Case(f"webp {name} padded", riff((webp[12:16], webp[20:] + bytes(64))), DAMAGED)
    yield Case("webp unknown first", riff((b"JUNK", b"x" * 100)), DAMAGED)


def bombs() -> Iterator[Case]:
    jpeg, progressive = bases()["baseline.jpg"], bases()["progressive.jpg"]
    empty_scan = b"\xff\xda\x00\x08\x01\x01\x00\x3f\x3f\x00"
    yield Case("jpeg 300 scans", progressive[:-2] + empty_scan * 300 + progressive[-2:], COMPLEX)
    large = resized_frame(progressive, 9_000, 9_000)
    yield Case("jpeg 60 scans of 81 MP", large[:-2] + empty_scan * 60 + large[-2:], COMPLEX)
    yield Case("jpeg 25000 segments", with_segments(jpeg, segment(0xFE, b"") * 25_000), COMPLEX)
    yield Case("jpeg 81 MP of nothing", resized_frame(jpeg, 9_000, 9_000), DAMAGED)
    yield Case("progressive 81 MP of nothing", resized_frame(progressive, 9_000, 9_000), DAMAGED)
    rows = png_of(header(9_000, 9_000), bytes(9_000 * 3 + 1) * 3)
    yield Case("png 81 MP of nothing", rows, DAMAGED)


def strangers() -> Iterator[Case]:
    """What is no photo, whatever it is called."""
    picture = Image.fromarray(board(64, 64))
    for kind in ("GIF", "BMP", "TIFF", "AVIF", "JPEG2000"):
        yield Case(f"a {kind}", saved(picture, kind), OTHER)
    yield Case("an icon", saved(picture, "ICO"), NO_IMAGE)
    heic = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)
    yield Case("a HEIC", heic, OTHER)
    yield Case("a Photoshop file", b"8BPS\x00\x01" + bytes(200), OTHER)
    yield Case("a JPEG XL", b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(200), OTHER)
    random = np.random.default_rng(9)
    for name, data in {
        "PDF": b"%PDF-1.7\n" + SECRET,
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "page": b"<!doctype html><img src=x onerror=alert(1)>",
        "PHP": b"<?php phpinfo(); ?>",
        "program": b"MZ" + bytes(500),
        "ELF": b"\x7fELF" + bytes(500),
        "archive": b"PK\x03\x04" + bytes(500),
        "gzip bomb": zlib.compress(bytes(10_000_000)),
        "film": b"\x00\x00\x00\x18ftypmp42" + bytes(500),
        "RAR": b"Rar!\x1a\x07\x00" + bytes(100),
        "text": "Zähler 48213, Plombe heil\n".encode() * 30,
        "UTF-16": "notes".encode("utf-16"),
        "JSON": b'{"photo": 1}',
        "laughs": b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "' + b"ha" * 100 + b'">]>',
        "RIFF sound": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(100),
        "zeros": bytes(100_000),
        "ones": b"\xff" * 100_000,
    }.items():
        yield Case(f"a {name}", data, NO_IMAGE)
    for number in range(20):
        yield Case(f"noise {number}", b"\x00" + random.bytes(int(random.integers(1, 50_000))), NO_IMAGE)
    for number in range(30):
        head = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\x00\x00\x00WEBPVP8 ")[number % 3]
        yield Case(f"noise behind a signature {number}", head + random.bytes(3_000), (*DAMAGED, *PIXELS, *OTHER))


def main(folder: Path) -> None:
    """Write every file, numbered, and what must be said of it."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for number, case in enumerate(corpus()):
        file = f"{number:03}"
        (folder / file).write_bytes(case.data)
        expected[file] = {"case": case.name, "verdict": case.verdict, "reasons": case.reasons}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(f"{len(expected)} files in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Damage in every part of a file, and what is made to exhaust its reader: none of it passes, none of it takes long."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from cases import COMPLEX, DAMAGED, HEIGHT, NO_IMAGE, OTHER, PIXELS, WIDTH, Case
from picture_bytes import SECRET, board, chunk, exif, header, png_of, riff, saved, segment, vp8x, with_segments
from PIL import Image

from fusebus.vision.formats import JPEG_MARKER

ANY = (*DAMAGED, *NO_IMAGE)
BLOT_BYTES = 64
"""Zeros that no Huffman-coded photo holds."""


def attacks() -> Iterator[Case]:
    yield from _cut_jpegs()
    yield from _cut_pngs()
    yield from _cut_webps()
    yield from _blotted_jpegs()
    yield from _bombs()


def _cut_jpegs() -> Iterator[Case]:
    picture = board(WIDTH, HEIGHT, 21)
    notes = (segment(0xE1, exif(1)), segment(0xE2, b"ICC_PROFILE\x00\x01\x01" + SECRET), segment(0xFE, SECRET))
    for name, options in {"baseline": {"restart_marker_rows": 4}, "progressive": {"progressive": True}}.items():
        jpeg = with_segments(saved(picture, "JPEG", quality=90, **options), *notes)
        for at in sorted(_places_in(jpeg)):
            yield Case(f"{name} cut at {at} in its segments", jpeg[:at], ANY)


def _places_in(jpeg: bytes) -> set[int]:
    """In the middle of every marker, length and content, and behind each."""
    places, position = {2, 3}, 2
    while (found := JPEG_MARKER.search(jpeg, position)) and found[1][0] != 0xD9:
        length = int.from_bytes(jpeg[found.end() : found.end() + 2], "big")
        places |= {found.start() + 1, found.end() + 1, found.end() + length // 2, found.end() + length}
        position = found.end() + length
    return places


def _cut_pngs() -> Iterator[Case]:
    packed = zlib.compress(b"".join(b"\x00" + row.tobytes() for row in board(WIDTH, HEIGHT, 22)))
    parts = [chunk(b"gAMA", struct.pack(">I", 45_455)), chunk(b"IDAT", packed[:5_000]), chunk(b"IDAT", packed[5_000:])]
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header(WIDTH, HEIGHT)) + b"".join(parts) + chunk(b"IEND", b"")
    position = 8
    while position < len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        for at in {position, position + 3, position + 8, position + 8 + length // 2, position + 8 + length}:
            if at < len(png):
                yield Case(f"png cut at {at} of {len(png)}, chunk at {position}", png[:at], DAMAGED)
        position += 12 + length
    for share in range(1, 8):
        at = 60 + share * len(png) // 9
        flipped = png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :]
        yield Case(f"png bit flipped at {share}", flipped, DAMAGED)
        yield Case(f"png 64 zeros at {share}", png[:at] + bytes(64) + png[at + 64 :], DAMAGED)


def _cut_webps() -> Iterator[Case]:
    picture = board(WIDTH, HEIGHT, 23)
    clear = Image.fromarray(np.dstack([picture, picture[:, :, 0]]))
    frames = {"save_all": True, "append_images": [Image.fromarray(board(WIDTH, HEIGHT, 24))]}
    for name, data in {
        "lossy": saved(picture, "WEBP", quality=80),
        "lossless": saved(picture, "WEBP", lossless=True, method=0),
        "extended": saved(clear, "WEBP", "RGBA", exif=exif(1)),
        "animated": saved(picture, "WEBP", **frames),
    }.items():
        for at in (4, 8, 12, 15, 16, 19, 20, 24, 31, 45, len(data) // 3, 2 * len(data) // 3, len(data) - 1):
            yield Case(f"webp {name} cut at {at}", data[:at], ANY)
        for at in (len(data) // 4, 2 * len(data) // 5) if name != "animated" else ():
            yield Case(f"webp {name} without 512 bytes at {at}", data[:at] + data[at + 512 :], DAMAGED)


def _blotted_jpegs() -> Iterator[Case]:
    picture = board(WIDTH, HEIGHT, 25)
    for name, options in {
        "plain": {},
        "restarts": {"restart_marker_rows": 4},
        "small tables": {"optimize": True},
    }.items():
        jpeg = saved(picture, "JPEG", quality=90, **options)
        scan = jpeg.rindex(b"\xff\xda")
        for share in range(1, 9):
            at = scan + 14 + share * (len(jpeg) - scan) // 10
            blotted = jpeg[:at] + bytes(BLOT_BYTES) + jpeg[at + BLOT_BYTES :]
            yield Case(f"jpeg {name}, {BLOT_BYTES} zeros at {share}", blotted, DAMAGED)
            noise = np.random.default_rng(share).bytes(512)
            yield Case(f"jpeg {name}, noise at {share}", jpeg[:at] + noise + jpeg[at + 512 :], DAMAGED)


def _bombs() -> Iterator[Case]:
    small = saved(board(64, 64), "JPEG", progressive=True)
    scan = small.rindex(b"\xff\xda")
    yield Case("jpeg of 3000 scans", small[:-2] + small[scan:-2] * 3_000 + small[-2:], COMPLEX)
    yield Case("png 65501 wide", png_of(header(65_501, 1), bytes(65_501 * 3 + 1)), PIXELS)
    white = zlib.compress(bytes(50_000_000), 9)
    inflating = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header(100, 100)) + chunk(b"IDAT", white) * 30
    yield Case("png inflates to a gigabyte and a half", inflating + chunk(b"IEND", b""), DAMAGED)
    twice = chunk(b"IHDR", header(9_000, 9_000)) + chunk(b"IDAT", white) + chunk(b"IEND", b"")
    yield Case("png of two headers", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header(8, 8)) + twice, DAMAGED)
    yield Case("png for iPhones", b"\x89PNG\r\n\x1a\n" + chunk(b"CgBI", b"P\x00 \x02") + twice, DAMAGED)
    still = saved(board(8, 8), "WEBP", lossless=True)
    yield Case(
        "webp of 16383 x 16383 on a canvas of 8 x 8", riff(vp8x(8, 8), (b"VP8L", b"\x2f\xff\xff\xff\x0f")), DAMAGED
    )
    large = saved(np.zeros((3_000, 3_000, 3), np.uint8), "WEBP", lossless=True, method=0)
    yield Case("webp of 3000 x 3000 on a canvas of 8 x 8", riff(vp8x(8, 8), (b"VP8L", large[20:])), DAMAGED)
    two_headers = riff(vp8x(8, 8), vp8x(3_000, 3_000), (b"VP8L", large[20:]))
    yield Case("webp of two headers", two_headers, DAMAGED)
    deep = still
    for _ in range(500):
        deep = riff(vp8x(8, 8, 2), (b"ANMF", bytes(16) + deep[12:]))
    yield Case("webp of 500 frames, each in another", deep, DAMAGED)
    nested = riff(vp8x(8, 8, 2), *[(b"ANMF", bytes(16) + still[12:])] * 1_001)
    yield Case("webp of 1001 frames", nested, COMPLEX)
    raw = b"\x00\x00\x00\x18ftypcrx " + bytes(200)
    yield Case("a camera's raw file", raw, OTHER)

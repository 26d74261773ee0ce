"""Sound pictures that phones, editors and old cameras write although few decoders expect them: all are accepted."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import simplejpeg
from cases import HEIGHT, OTHER, WIDTH, Case
from picture_bytes import (
    SECRET,
    board,
    chunk,
    exif,
    header,
    interlaced_png,
    png_of,
    saved,
    segment,
    with_chunks,
    with_segments,
)
from PIL import Image

SIZE, TURNED = (WIDTH, HEIGHT), (HEIGHT, WIDTH)
KEPT = ("2026-03-04T05:06:07+01:00", "Van Cam 3")
XMP = b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta GCamera:MicroVideo='1' exif:GPSLatitude='51,30N'>" + SECRET
EXTENSION = b"http://ns.adobe.com/xmp/extension/\x00" + b"0" * 32 + struct.pack(">II", 120_000, 0)
KINDS = ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (2, 3), (4, 3), (8, 3), (8, 4), (16, 4))
"""Depth and colour type of PNG files, and RGBA below."""
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
CLEAR = {0: b"\x00\x01", 2: bytes(6), 3: b"\x80"}


def unusual() -> Iterator[Case]:
    yield from _jpeg_colours()
    yield from _jpeg_structure()
    yield from _jpeg_metadata()
    yield from _png_kinds()
    yield from _png_structure()
    yield from _webp()


def _adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def _jpeg_colours() -> Iterator[Case]:
    picture = board(WIDTH, HEIGHT, 11)
    for sampling in ("444", "422", "420", "440", "411", "Gray"):
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), 90, "RGB", sampling)
        yield Case(f"jpeg sampling {sampling}", data, size=SIZE)
    line = simplejpeg.encode_jpeg(np.ascontiguousarray(picture[:8]), 90, "RGB", "411")
    at = line.index(b"\xff\xc0")
    column = line[: at + 5] + struct.pack(">HH", WIDTH, 8) + b"\x03\x01\x14" + line[at + 12 :]
    yield Case("jpeg sampling 441", column, size=(8, WIDTH))  # the same blocks, one below the other
    jpeg = saved(picture, "JPEG", quality=90)
    yield Case("jpeg without JFIF", jpeg[:2] + jpeg[20:], size=SIZE)
    for transform in (0, 1):
        yield Case(f"jpeg Adobe {transform}", jpeg[:2] + _adobe(transform) + jpeg[20:], size=SIZE)
    yield Case("jpeg JFIF and Adobe", with_segments(jpeg, _adobe(1)), size=SIZE)
    at = jpeg.index(b"\xff\xc0")
    yield Case("jpeg extended sequential", jpeg[: at + 1] + b"\xc1" + jpeg[at + 2 :], size=SIZE)
    sampled = jpeg[: at + 11] + b"\x42" + jpeg[at + 12 :]
    yield Case("jpeg sampling that no decoder here knows", sampled, OTHER)
    for progressive in (False, True):
        printed = saved(picture, "JPEG", "CMYK", quality=90, progressive=progressive, exif=exif(6))
        yield Case(f"jpeg CMYK with EXIF, progressive {progressive}", printed, size=TURNED, kept=KEPT)
    place = printed.index(b"Adobe") + 11
    yield Case("jpeg YCCK", printed[:place] + b"\x02" + printed[place + 1 :], size=TURNED, kept=KEPT)
    dark = np.zeros((1_500, 2_000, 3), np.uint8)
    dark[:700] = board(2_000, 700, 3)
    for options in ({}, {"progressive": True}, {"optimize": True}):
        yield Case(f"jpeg half black {options}", saved(dark, "JPEG", **options), size=(2_000, 1_500))


def _jpeg_structure() -> Iterator[Case]:
    picture = board(WIDTH, HEIGHT, 12)
    for progressive in (False, True):
        jpeg = saved(picture, "JPEG", quality=90, progressive=progressive)
        for name, padding in {
            "fill bytes": b"\xff" * 7,
            "a zero": b"\x00",
            "15 zeros": bytes(15),
            "600 zeros": bytes(600),
        }.items():
            yield Case(f"jpeg {name} before its end {progressive}", jpeg[:-2] + padding + jpeg[-2:], size=SIZE)
        loose = with_segments(jpeg, segment(0xE5, b"maker") + bytes(9), segment(0xFE, b"note") + b"odd bytes")
        yield Case(f"jpeg loose bytes between segments {progressive}", loose, size=SIZE)
    jpeg = saved(picture, "JPEG", quality=90)
    film = b"\x00\x00\x00\x18ftypmp42" + SECRET * 20 + jpeg[:900] + b"\xff\xd9\xff\xda"
    yield Case("jpeg motion photo", with_segments(jpeg, segment(0xE1, XMP)) + film, size=SIZE)
    yield Case("jpeg Samsung trailer", jpeg + b"\x00\x00\x01\x0aSEFHe\x00\x00\x00SEFT", size=SIZE)
    more = {"save_all": True, "append_images": [Image.fromarray(picture[::2, ::2])], "exif": exif(6)}
    phone = saved(picture, "MPO", **more)
    yield Case("jpeg of a phone with a preview", phone, size=TURNED, kept=KEPT)
    yield Case("jpeg of a phone, its preview cut", phone[:-5_000], size=TURNED, kept=KEPT)


def _jpeg_metadata() -> Iterator[Case]:
    jpeg = saved(board(WIDTH, HEIGHT, 13), "JPEG", quality=90)
    profile = [segment(0xE2, b"ICC_PROFILE\x00" + bytes([n, 255]) + bytes(65_000)) for n in range(1, 256)]
    maker = b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + struct.pack("<HHHII", 1, 0x927C, 7, 400, 26) + bytes(4)
    endless = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + struct.pack("<HHII", 0x8769, 4, 1, 8) * 5_400
    huge = b"".join(struct.pack("<HHII", tag, 2, 0xFFFFFFFF, 0xFFFFFFF0) for tag in (0x110, 0x112, 0x9003))
    for name, parts in {
        "profile of 16 MB": profile,
        "profile numbered wrong": [segment(0xE2, b"ICC_PROFILE\x00\x09\x02xx"), segment(0xE2, b"ICC_PROFILE\x00\x00")],
        "extended XMP": [segment(0xE1, XMP), *[segment(0xE1, EXTENSION + b"\xff\xd8\xff\xe0" * 9_000)] * 3],
        "position in the maker's notes": [segment(0xE1, maker + SECRET * 9)],
        "position in IPTC": [segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + b"\x1c\x02\x5a" + SECRET)],
        "endless EXIF, 200 times": [segment(0xE1, endless[:65_000])] * 200,
        "EXIF of huge counts": [segment(0xE1, b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x03\x00" + huge + bytes(4))],
    }.items():
        yield Case(f"jpeg with {name}", with_segments(jpeg, *parts), size=SIZE)
    behind = with_segments(jpeg, segment(0xE1, XMP), segment(0xE1, exif(6)))
    yield Case("jpeg with EXIF behind XMP", behind, size=TURNED, kept=KEPT)


def _png_kinds() -> Iterator[Case]:
    for depth, colour in (*KINDS, (8, 6), (16, 6)):
        palette = [chunk(b"PLTE", bytes(range(256))[: 3 << depth] * (3 if depth == 8 else 1))] if colour == 3 else []
        clear = [chunk(b"tRNS", CLEAR[colour])] if colour in CLEAR else []
        for interlaced in (0, 1):
            raw = b"".join(_rows(depth * CHANNELS[colour], interlaced))
            head = header(WIDTH, HEIGHT, depth, colour, interlaced)
            for name, more in {"": palette, " with a clear colour": palette + clear}.items():
                if not name or clear:
                    yield Case(f"png {depth} {colour} {interlaced}{name}", png_of(head, raw, *more), size=SIZE)


def _rows(bits: int, interlaced: int) -> Iterator[bytes]:
    """Rows of noise, unfiltered, of one pass or of seven."""
    random = np.random.default_rng(bits)
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((left - WIDTH) // across), -((top - HEIGHT) // down)
        for _ in range(rows):
            yield b"\x00" + random.bytes((columns * bits + 7) // 8)


def _png_structure() -> Iterator[Case]:
    picture = board(WIDTH, HEIGHT, 14)
    raw = b"".join(b"\x00" + row.tobytes() for row in picture)
    packed = zlib.compress(raw)

    def of(*parts: bytes, more: bytes = b"") -> bytes:
        head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header(WIDTH, HEIGHT)) + more
        return head + b"".join(chunk(b"IDAT", part) for part in parts) + chunk(b"IEND", b"")

    for level in (0, 1, 9):
        yield Case(f"png level {level} in one chunk", of(zlib.compress(raw, level)), size=SIZE)
    for window in (9, 12, 15):
        packer = zlib.compressobj(6, zlib.DEFLATED, window)
        yield Case(f"png window {window}", of(packer.compress(raw) + packer.flush()), size=SIZE)
    for strategy in (1, 2, 3, 4):
        yield Case(f"png strategy {strategy}", saved(picture, "PNG", compress_type=strategy), size=SIZE)
    yield Case("png pieces of 99 bytes", of(*(packed[at : at + 99] for at in range(0, len(packed), 99))), size=SIZE)
    yield Case("png empty pieces", of(b"", packed[:1_000], b"", packed[1_000:], b""), size=SIZE)
    rich = chunk(b"gAMA", struct.pack(">I", 45_455)) + chunk(b"sRGB", b"\x00") + chunk(b"tIME", bytes(7))
    rich += chunk(b"bKGD", bytes(6)) + chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + XMP)
    yield Case("png of an editor", of(packed, more=rich), size=SIZE)
    turned = of(packed)[:-12] + chunk(b"eXIf", exif(6)[6:]) + chunk(b"IEND", b"")
    yield Case("png EXIF behind the picture", turned, size=TURNED, kept=KEPT)
    yield Case(
        "png interlaced and turned",
        with_chunks(interlaced_png(picture), chunk(b"eXIf", exif(8)[6:])),
        size=TURNED,
        kept=KEPT,
    )
    flat = zlib.compress(bytes(50_000_000), 9)
    texts = chunk(b"zTXt", b"C\x00\x00" + flat) * 20 + chunk(b"iCCP", b"x\x00\x00" + flat)
    yield Case("png texts of a gigabyte", of(packed, more=texts), size=SIZE)
    red, blue = (Image.new("RGB", SIZE, colour) for colour in ((200, 30, 30), (30, 30, 200)))
    for hidden in (False, True):
        out = io.BytesIO()
        red.save(out, "PNG", save_all=True, append_images=[blue] * 3, default_image=hidden)
        yield Case(f"png animated, first picture hidden {hidden}", out.getvalue(), size=SIZE, colour=(200, 30, 30))


def _webp() -> Iterator[Case]:
    picture = board(WIDTH, HEIGHT, 15)
    for method in range(0, 7, 2):
        yield Case(f"webp lossless method {method}", saved(picture, "WEBP", lossless=True, method=method), size=SIZE)
        clear = Image.fromarray(np.dstack([picture, picture[:, :, 0]]))
        data = saved(clear, "WEBP", "RGBA", method=method, alpha_quality=30 * method // 2)
        yield Case(f"webp with transparency, method {method}", data, size=SIZE)
    flat = np.full((3_000, 4_000, 3), 90, np.uint8)
    for lossless in (False, True):
        yield Case(
            f"webp flat, 12 MP, lossless {lossless}",
            saved(flat, "WEBP", lossless=lossless, method=0),
            size=(4_000, 3_000),
        )
    frames = {"save_all": True, "append_images": [Image.fromarray(board(WIDTH, HEIGHT, 16))], "xmp": XMP}
    data = saved(picture, "WEBP", **frames, exif=exif(6), icc_profile=SECRET)
    yield Case("webp animated and turned", data, size=TURNED, kept=KEPT)

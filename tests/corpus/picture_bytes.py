"""Writes picture files byte by byte: sound ones of every kind, and the tools to damage them."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

SECRET = b"SECRET-51.5007N-0.1246W-owner-jane-serial-4711"
"""Stands in every field of metadata; wherever it turns up behind validation, metadata leaked."""

ARITHMETIC_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAoHBwgHBgoICAgLCgoLDhgQDg0NDh0VFhEYIx8lJCIfIiEmKzcvJik0KSEiMEExNDk7"
    "Pj4+JS5ESUM8SDc9Pjv/2wBDAQoLCw4NDhwQEBw7KCIoOzs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7Ozs7"
    "Ozs7Ozs7Ozv/yQARCAAQABgDASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwDSjh5VdgKLb3q9t9pqDTbwHJnrPAPH"
    "hxMQcjJOzBTz776GOXcrmos6t2Mga8+7SZSF+P8AP/8AioQQzAK64J71IIoJQshQrGD/2Q=="
)
"""Made by `jpegtran -arithmetic`: no library here writes one."""


def board(width: int, height: int, seed: int = 1) -> Pixels:
    """Smooth colour with sharp edges and some grain: like a photo, every file of it has enough to be damaged."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 220, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.int16)
    picture += random.integers(-12, 12, picture.shape, np.int16)
    return np.clip(picture, 0, 255).astype(np.uint8)


def saved(pixels: Pixels | Image.Image, image_format: str, mode: str = "RGB", **options: Any) -> bytes:
    """A file as Pillow writes it."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    (image if image.mode == mode else image.convert(mode)).save(out, image_format, **options)
    return out.getvalue()


def exif(orientation: int = 1, taken: str = "2026:03:04 05:06:07", model: str = "Van Cam 3") -> bytes:
    """An EXIF block with everything that must not travel on, GPS included, and the two fields that may."""
    block = Image.Exif()
    secret = SECRET.decode()
    block[0x0112], block[0x010F], block[0x0110], block[0x013B] = orientation, secret, model, secret
    details = block.get_ifd(0x8769)
    details.update({0x9003: taken, 0x9011: "+01:00", 0xA431: secret, 0xA430: secret, 0x927C: SECRET})
    block.get_ifd(0x8825).update(
        {1: "N", 2: (51.0, 30.0, 2.5), 3: "W", 4: (0.0, 7.0, 28.5), 27: SECRET, 29: "2026:03:04"}
    )
    return block.tobytes()


def segment(kind: int, content: bytes) -> bytes:
    """A JPEG segment."""
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(content) + 2) + content


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """The same JPEG with more segments at its front."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def resized_frame(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its header."""
    changed = bytearray(jpeg)
    at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2"))
    changed[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(changed)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk, its checksum right."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk of a sound PNG."""
    position = 8
    while position < len(png):
        length = int.from_bytes(png[position : position + 4], "big")
        yield png[position + 4 : position + 8], png[position + 8 : position + 8 + length]
        position += 12 + length


def repacked(png: bytes, change: Callable[[bytes, bytes], bytes | None]) -> bytes:
    """The PNG with each chunk's content replaced (None: left out), checksums right."""
    out = [png[:8]]
    for kind, content in chunks(png):
        changed = change(kind, content)
        if changed is not None:
            out.append(chunk(kind, changed))
    return b"".join(out)


def with_chunks(png: bytes, *more: bytes) -> bytes:
    """The PNG with more chunks behind its header."""
    return png[:33] + b"".join(more) + png[33:]


def header(width: int, height: int, depth: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    """The content of IHDR."""
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)


def png_of(ihdr: bytes, raw: bytes, *more: bytes) -> bytes:
    """A PNG of these filtered rows."""
    parts = (chunk(b"IHDR", ihdr), *more, chunk(b"IDAT", zlib.compress(raw, 1)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def interlaced_png(pixels: Pixels) -> bytes:
    """Adam7, no filters."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = []
    for left, top, across, down in passes:
        part = pixels[top::down, left::across]
        rows += [b"\x00" + row.tobytes() for row in part] if part.size else []
    return png_of(header(pixels.shape[1], pixels.shape[0], interlaced=1), b"".join(rows))


def riff(*parts: tuple[bytes, bytes]) -> bytes:
    """A WebP file of these chunks."""
    body = b"".join(kind + struct.pack("<I", len(one)) + one + bytes(len(one) & 1) for kind, one in parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def vp8x(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    """The extended header's chunk."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides


def frame(left: int, top: int, width: int, height: int, picture: bytes) -> tuple[bytes, bytes]:
    """An animation's frame of a still WebP file's chunks."""
    place = b"".join(number.to_bytes(3, "little") for number in (left // 2, top // 2, width - 1, height - 1, 100))
    return b"ANMF", place + b"\x00" + picture[12:]


def blotted(data: bytes, at: float, length: int, seed: int | None = None) -> bytes:
    """A stretch of zeros, or of random bytes, inside."""
    start = int(len(data) * at)
    blot = bytes(length) if seed is None else np.random.default_rng(seed).bytes(length)
    return data[:start] + blot[: len(data) - start] + data[start + length :]

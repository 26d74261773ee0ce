"""Reduces a file to the parts that make its first picture; nothing else reaches a decoder.

Texts, profiles, EXIF and later frames stay out: they can be bombs of their own, and no derivative may carry them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from fusebus.vision.errors import Damaged
from fusebus.vision.formats import (
    JPEG_END,
    JPEG_SCAN,
    PNG_SIGNATURE,
    Chunk,
    Segment,
    jpeg_segments,
    png_chunks,
    webp_chunks,
    webp_size,
)

STRIP_ROWS = 16
"""Transparency is laid on white so many rows at a time: they stay in the cache, and whole copies would cost memory."""

_JPEG_TEXTS = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
"""EXIF, XMP, profiles, comments and the like; JFIF (0xE0) and Adobe (0xEE) say what the colours mean."""
_JPEG_SLACK = 2
"""Bytes behind the last code of a scan that every decoder takes."""
_PNG_ESSENCE = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_WEBP_PICTURE = frozenset({b"ALPH", b"VP8 ", b"VP8L"})
_ALPHA_FLAG = 0x10  # in VP8X
_VP8L_ALPHA = 0x10  # in the fifth byte


class WebpStill(msgspec.Struct, frozen=True):
    """The first picture of a WebP file: its chunks, and where it lies on the canvas, in pixels."""

    chunks: tuple[tuple[bytes, bytes], ...]
    canvas: tuple[int, int] | None
    """Width and height as an extended header says; None where there is none."""
    left: int = 0
    top: int = 0
    animated: bool = False

    @property
    def transparent(self) -> bool:
        """Whether it has a transparency channel."""
        kind, content = self.chunks[-1]
        return self.chunks[0][0] == b"ALPH" or (kind == b"VP8L" and len(content) > 4 and bool(content[4] & _VP8L_ALPHA))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as its chunk states, which a decoder makes room for. Raises Damaged."""
        return webp_size(*self.chunks[-1])

    def file(self) -> bytes:
        """A WebP file of nothing but this picture."""
        body = b"".join(_webp_chunk(kind, content) for kind, content in self.chunks)
        if self.chunks and self.chunks[0][0] == b"ALPH":
            width, height = self.size
            sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
            body = _webp_chunk(b"VP8X", bytes([_ALPHA_FLAG, 0, 0, 0]) + sides) + body
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jpeg_still(data: bytes, segments: Sequence[Segment] | None = None) -> bytes:
    """A JPEG file of only the first picture's tables, frame and scans. One that is cut short stays so.

    From the first scan on nothing is left out: what seems to be loose bytes or a text may be a scan that was
    overwritten, and the decoder shall complain of it. `segments`: see `inspect`.
    """
    segments = jpeg_segments(data) if segments is None else segments
    ended = bool(segments) and segments[-1].kind == JPEG_END
    stop, behind = (segments[-1].at, len(data)) if ended else (len(data), segments[-1].end if segments else 2)
    scan = next((one.at for one in segments if one.kind == JPEG_SCAN), None)
    view = memoryview(data)
    kept = [view[one.at : one.end] for one in segments if one.at < (stop if scan is None else scan)]
    kept = [part for part in kept if part[1] not in _JPEG_TEXTS]
    return b"".join([b"\xff\xd8", *kept, view[behind if scan is None else scan : stop], b"\xff\xd9" * ended])


def without_padding(jpeg: bytes) -> bytes | None:
    """A `jpeg_still` without the zeros before its end, with which some cameras fill up a block; None: it has none."""
    body = jpeg[:-2].rstrip(b"\x00")
    spare = len(jpeg) - 2 - len(body) - _JPEG_SLACK
    return jpeg[: len(body) + _JPEG_SLACK] + jpeg[-2:] if spare > 0 and jpeg.endswith(b"\xff\xd9") else None


def png_still(data: bytes) -> bytes:
    """A PNG file of only header, palette, transparency and pixel data; an animation's first picture."""
    chunks = list(png_chunks(data))
    if all(chunk.kind in _PNG_ESSENCE for chunk in chunks):
        return data
    view = memoryview(data)
    kept = [view[one.start - 8 : one.start + one.length + 4] for one in chunks if one.kind in _PNG_ESSENCE]
    return b"".join([PNG_SIGNATURE, *kept])


def webp_still(data: bytes) -> WebpStill:
    """The first picture's chunks. Raises TooComplex; Damaged where there is none or the file is shorter than it says.

    A picture that is larger than the file's header says is Damaged, too: no decoder gets to make room for it.
    """
    if 8 + int.from_bytes(data[4:8], "little") > len(data):
        raise Damaged("webp is cut short")
    canvas: tuple[int, int] | None = None
    found: list[tuple[bytes, bytes]] = []
    for chunk in webp_chunks(data):
        content = _content(data, chunk)
        if chunk.kind == b"VP8X" and len(content) >= 10:
            if canvas is not None:  # which one would a decoder believe?
                raise Damaged("webp has two headers")
            canvas = int.from_bytes(content[4:7], "little") + 1, int.from_bytes(content[7:10], "little") + 1
        elif chunk.kind == b"ANMF":
            return _frame(content, canvas)
        elif chunk.kind in _WEBP_PICTURE:
            found.append((chunk.kind, content))
            if chunk.kind != b"ALPH":
                return _on_canvas(WebpStill(tuple(found), canvas))
    raise Damaged("webp has no image")


def decode_png(data: bytes) -> NDArray[np.uint8]:
    """RGB pixels of a PNG that `decodes_fast`; of 16 bits the upper eight. Raises Damaged."""
    return _decoded(png_still(data), "png", transparent=data[25] == 6)


def decode_webp(data: bytes) -> NDArray[np.uint8]:
    """RGB pixels of the first picture on its canvas. Raises TooComplex, Damaged."""
    still = webp_still(data)
    pixels = _decoded(still.file(), "webp", transparent=still.transparent)
    if not still.animated:
        return pixels
    assert still.canvas is not None, "an animation has an extended header"
    width, height = still.canvas
    whole = np.full((height, width, 3), 255, np.uint8)
    whole[still.top : still.top + pixels.shape[0], still.left : still.left + pixels.shape[1]] = pixels
    return whole


def decodes_fast(data: bytes) -> bool:
    """Whether `decode_png` shows this PNG as it is: no transparent colour, no grey or 16 bits with transparency."""
    if any(chunk.kind == b"tRNS" for chunk in png_chunks(data)):
        return False
    depth, colour = data[24], data[25]
    return colour in (0, 2, 3) or (colour == 6 and depth == 8)


def _frame(content: bytes, canvas: tuple[int, int] | None) -> WebpStill:
    """The picture inside an animation's first frame; its place is stored in units of two pixels."""
    if len(content) < 16 or canvas is None:
        raise Damaged("webp has an unreadable frame")
    left, top = 2 * int.from_bytes(content[0:3], "little"), 2 * int.from_bytes(content[3:6], "little")
    inner = b"RIFF" + struct.pack("<I", len(content) - 12) + b"WEBP" + content[16:]
    if any(chunk.kind in (b"VP8X", b"ANMF") for chunk in webp_chunks(inner)):
        raise Damaged("webp has a file in its frame")
    still = webp_still(inner)
    return _on_canvas(WebpStill(still.chunks, canvas, left, top, animated=True))


def _on_canvas(still: WebpStill) -> WebpStill:
    (width, height), (most_width, most_height) = still.size, still.canvas or still.size
    fits = 0 < width <= most_width - still.left and 0 < height <= most_height - still.top
    if not fits or not (still.animated or (width, height) == (most_width, most_height)):
        raise Damaged(f"webp has {width} x {height} pixels on a canvas of {most_width} x {most_height}")
    return still


def _content(data: bytes, chunk: Chunk) -> bytes:
    if chunk.start + chunk.length > len(data):
        raise Damaged("webp is cut short")
    return data[chunk.start : chunk.start + chunk.length]


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) & 1)


def _decoded(file: bytes, image_format: str, *, transparent: bool) -> NDArray[np.uint8]:
    """RGB; OpenCV itself would lay transparency on black."""
    flags = cv2.IMREAD_UNCHANGED if transparent else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(file, np.uint8), flags)
    except cv2.error as error:
        raise Damaged(f"{image_format}: {str(error).strip()[:200]}") from error
    if pixels is None or pixels.dtype != np.uint8 or pixels.shape[2:] != ((4,) if transparent else (3,)):
        raise Damaged(f"{image_format}: its pixel data can't be decoded")
    return _on_white(np.asarray(pixels)) if transparent else np.asarray(pixels)


def _on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of a BGRA picture."""
    out = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), STRIP_ROWS):
        strip, target = pixels[top : top + STRIP_ROWS], out[top : top + STRIP_ROWS]
        cv2.cvtColor(strip, cv2.COLOR_BGRA2RGB, dst=target)
        alpha = cv2.extractChannel(strip, 3)
        if alpha.min() < 255:
            darkness = cv2.multiply(255 - target, cv2.merge([alpha, alpha, alpha]), scale=1 / 255)
            cv2.bitwise_not(darkness, dst=target)
    return out

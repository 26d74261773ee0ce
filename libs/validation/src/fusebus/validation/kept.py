"""Reads the two fields that are kept of a picture's metadata: when it was taken, and with which camera. GPS never."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime

from fusebus.vision.formats import png_chunks, webp_chunks

MAX_CAMERA = 60  # characters
MAX_EXIF = 65_536  # bytes that are looked at
MAX_ENTRIES = 200  # of a directory

_MODEL, _EXIF_DIRECTORY, _TAKEN, _OFFSET = 0x0110, 0x8769, 0x9003, 0x9011
_ASCII = 2  # the field type of text
_MOMENT = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")
_HEAD = b"Exif\x00\x00"


def kept_fields(image_format: str, data: bytes) -> tuple[str, str]:
    """`captured_at` and `camera` (see Facts), each empty where the picture does not say; never raises for bad EXIF."""
    return fields_of(_exif(image_format, data))


def fields_of(tiff: bytes) -> tuple[str, str]:
    """The same from an EXIF block, with or without its head."""
    tiff = tiff.removeprefix(_HEAD)[:MAX_EXIF]
    if tiff[:4] not in (b"II*\x00", b"MM\x00*"):
        return "", ""
    reader = _Tiff(tiff, little=tiff[:2] == b"II")
    first = dict(reader.entries(reader.number(4, 4)))
    details = dict(reader.entries(reader.number(first[_EXIF_DIRECTORY] + 8, 4))) if _EXIF_DIRECTORY in first else {}
    taken = reader.text(details.get(_TAKEN))
    return _moment(taken, reader.text(details.get(_OFFSET))), _camera(reader.text(first.get(_MODEL)))


class _Tiff:
    """Bounded reads in one EXIF block; what lies outside of it reads as zero or nothing."""

    def __init__(self, data: bytes, *, little: bool) -> None:
        self._data = data
        self._little = little

    def number(self, position: int, length: int) -> int:
        return int.from_bytes(self._data[position : position + length], "little" if self._little else "big")

    def entries(self, directory: int) -> Iterator[tuple[int, int]]:
        """Tag and position of each entry."""
        for index in range(min(self.number(directory, 2), MAX_ENTRIES)):
            position = directory + 2 + 12 * index
            yield self.number(position, 2), position

    def text(self, entry: int | None) -> str:
        if entry is None or self.number(entry + 2, 2) != _ASCII:
            return ""
        length = min(self.number(entry + 4, 4), 1_000)
        start = entry + 8 if length <= 4 else self.number(entry + 8, 4)
        return self._data[start : start + length].split(b"\x00")[0].decode("utf-8", "replace")


def _exif(image_format: str, data: bytes) -> bytes:
    if image_format == "jpeg":
        return _of_jpeg(data)
    chunks = png_chunks(data) if image_format == "png" else webp_chunks(data)
    wanted = b"eXIf" if image_format == "png" else b"EXIF"
    for chunk in chunks:
        if chunk.kind == wanted:
            return data[chunk.start : chunk.start + min(chunk.length, MAX_EXIF)]
    return b""


def _of_jpeg(data: bytes) -> bytes:
    """The first EXIF segment before the first scan."""
    position = 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        kind, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if kind == 0xFF:  # a fill byte
            position += 1
            continue
        if kind == 0xDA:
            break
        if kind == 0xE1 and data[position + 4 : position + 10] == _HEAD:
            return data[position + 4 : position + 2 + length]
        position += 2 + max(length, 2)
    return b""


def _moment(taken: str, offset: str) -> str:
    """ISO 8601; empty for what is no moment (cameras without a clock write zeros or blanks)."""
    if not (found := _MOMENT.fullmatch(taken.strip())):
        return ""
    year, month, day, hour, minute, second = found.groups()
    text = f"{year}-{month}-{day}T{hour}:{minute}:{second}"
    return next((moment for moment in (text + offset.strip(), text) if _is_moment(moment)), "")


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _camera(text: str) -> str:
    shown = "".join(character for character in unicodedata.normalize("NFC", text[:200]) if character.isprintable())
    return " ".join(shown.split())[:MAX_CAMERA]

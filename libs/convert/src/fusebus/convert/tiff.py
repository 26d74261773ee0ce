"""TIFF by its own tags: what its samples are, whether its strips are whole, and by libvips what Pillow gets wrong."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import msgspec
import numpy as np
import pyvips

from fusebus.convert import colours
from fusebus.convert.errors import Reason, Unconvertible
from fusebus.convert.picture import Picture, Samples
from fusebus.convert.upright import upright

FIRST_BYTES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Of either byte order; `+` is BigTIFF."""
# Tags, as in TIFF 6.0; BigTIFF has the same.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _CHANNELS, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_FAX3, _FAX4, _PREDICTOR, _PALETTE = 292, 293, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_EXTRA, _NUMBERS, _JPEG_TABLES, _PROFILE = 338, 339, 347, 34675
_YCBCR = (529, 530, 531, 532)
_DECODERS_TAGS = frozenset(
    {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS, _CHANNELS, _STRIP_ROWS, _STRIP_BYTES}
    | {_PLANAR, _FAX3, _FAX4, _PREDICTOR, _PALETTE, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _NUMBERS}
    | {_JPEG_TABLES, *_YCBCR}
)
_FAX, _JPEG, _PACKBITS, _DEFLATE = (2, 3, 4), 7, 32773, (8, 32946)
_FOR_LIBVIPS = frozenset({1, *_FAX, 5, _JPEG, *_DEFLATE, _PACKBITS})
_FOR_PILLOW = _FOR_LIBVIPS | {6, 32771, 32809, 34925, 50000}
"""Compressions: besides raw and LZW, JPEG of the old kind, fax in words, ThunderScan, LZMA, zstd."""
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _CMYK, _LAB = 0, 1, 2, 5, 8
_COLOURS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _CMYK: 4, _LAB: 3}
"""Samples of a pixel without the extra ones, by PhotometricInterpretation."""
_PREMULTIPLIED, _ALPHA = 1, 2  # kinds of extra samples; 0 is anything else
_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SHORT, _LONG, _LONG8 = 3, 4, 16
_CODES = {1: "B", _SHORT: "H", _LONG: "I", 13: "I", _LONG8: "Q"}
_BLOCK_BYTES = 1 << 20
_SPARE_BYTES, _SPARE_PIXELS = 1 << 16, 1 << 24
_MOST_CHANNELS = 6
"""As Pillow has it: memory is asked for by the pixel."""


class Directory(msgspec.Struct, frozen=True):
    """The first picture's tags."""

    order: str
    """`<` or `>`, as struct has it."""
    fields: dict[int, tuple[int, bytes]]
    """By tag: type and content."""
    more: bool
    """Whether another picture follows."""

    def numbers(self, tag: int, *default: int) -> tuple[int, ...]:
        """Whole numbers; `default` where the tag is missing or holds others."""
        kind, content = self.fields.get(tag, (0, b""))
        if kind not in _CODES:
            return default
        return struct.unpack(f"{self.order}{len(content) // _SIZES[kind]}{_CODES[kind]}", content)

    def number(self, tag: int, default: int = 0) -> int:
        """The first of the numbers."""
        return (*self.numbers(tag, default), default)[0]

    @property
    def width(self) -> int:
        """Pixels as stored, before the orientation is applied."""
        return self.number(_WIDTH)

    @property
    def height(self) -> int:
        """Pixels as stored."""
        return self.number(_HEIGHT)

    @property
    def bits(self) -> int:
        """Of the widest sample."""
        return max(self.numbers(_BITS, 1), default=1)

    @property
    def channels(self) -> int:
        """Samples a pixel, extra ones among them."""
        return min(self.number(_CHANNELS, 1), 65_535)  # a damaged one would take memory for each

    @property
    def extra(self) -> tuple[int, ...]:
        """Kinds of the samples behind the colours; where nothing tells, the first is alpha, as Pillow has it."""
        unexplained = max(0, self.channels - _COLOURS.get(self.number(_PHOTOMETRIC), self.channels))
        return self.numbers(_EXTRA, *(_ALPHA, *(0,) * unexplained)[:unexplained])

    @property
    def profile(self) -> bytes | None:
        """The ICC profile."""
        return self.fields[_PROFILE][1] if _PROFILE in self.fields else None


def directory(data: bytes) -> Directory | None:
    """None for what is no TIFF, or none whose tags can be read: the decoder tells what is wrong."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or data[:4] not in FIRST_BYTES:
        return None
    big = b"+" in data[2:4]
    entry, offset, count = (f"{order}HHQ", "Q", "Q") if big else (f"{order}HHI", "I", "H")
    fields: dict[int, tuple[int, bytes]] = {}
    try:
        (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count, data, at)
        at += struct.calcsize(count)
        for _ in range(min(entries, 4096)):
            tag, kind, length = struct.unpack_from(entry, data, at)
            start, size = at + struct.calcsize(entry), length * _SIZES.get(kind, 0)
            at = start + struct.calcsize(offset)
            if size > struct.calcsize(offset):
                (start,) = struct.unpack_from(order + offset, data, start)
            if size and start + size <= len(data):
                fields.setdefault(tag, (kind, data[start : start + size]))
        (following,) = struct.unpack_from(order + offset, data, at)
    except struct.error:
        return None
    found = Directory(order, fields, bool(following))
    return found if found.width and found.height else None


def refuse(tags: Directory) -> None:
    """Raises Unconvertible for samples that neither target holds, and what nothing here reads."""
    kind = _FORMATS.get(max(tags.numbers(_NUMBERS, 1), default=1), "")
    if kind == "signed" and tags.number(_PHOTOMETRIC) == _LAB:
        kind = ""  # two of its samples always are
    if kind or tags.bits > 16:
        what = f"{kind} samples of {tags.bits} bits" if kind else f"{tags.bits} bits a sample"
        way = "PNG and WebP hold unsigned whole numbers of 16 bits at most; save it so"
        raise Unconvertible(Reason.UNSUPPORTED_DEPTH, f"tiff of {what}: {way}")
    if tags.channels > _MOST_CHANNELS or tags.number(_COMPRESSION, 1) not in (
        _FOR_LIBVIPS if is_for_libvips(tags) else _FOR_PILLOW
    ):
        raise unsupported(tags)


def unsupported(tags: Directory) -> Unconvertible:
    """Sound perhaps, but nothing here reads it."""
    bits = " + ".join(map(str, tags.numbers(_BITS, 1))) if len(set(tags.numbers(_BITS, 1))) > 1 else tags.bits
    text = (
        f"tiff with {tags.channels} x {bits} bits a pixel, photometric interpretation "
        f"{tags.number(_PHOTOMETRIC)}, extra samples {list(tags.extra)}, compression {tags.number(_COMPRESSION, 1)}: "
        "nothing here reads that; save it as grey or RGB of 8 or 16 bits"
    )
    odd_depth = tags.number(_PHOTOMETRIC) in _COLOURS and bits not in (1, 2, 4, 8, 16)
    return Unconvertible(Reason.UNSUPPORTED_DEPTH if odd_depth else Reason.UNSUPPORTED_FORMAT, text)


def verify(data: bytes, tags: Directory) -> None:
    """Raises Unconvertible for damage that decoders forgive: deflate's wrong checksums, what libtiff only warns of.

    Raw samples, zstd and JPEG of the old kind have nothing to go by.
    """
    compression = tags.number(_COMPRESSION, 1)
    if compression in _DEFLATE:
        most = 2 * _part_size(tags)[1] * _row_bytes(tags) + _SPARE_BYTES
        for start, size in _parts(tags, len(data)):
            _verify_deflate(memoryview(data)[start : start + size], most)
    elif compression in (*_FAX, _JPEG, _PACKBITS):
        try:
            _opened(data, tags, _as_strips(tags)).avg()
        except pyvips.Error as error:
            if compression != _JPEG or not _ends_in_a_whole_strip(data, tags):
                raise _undecoded(error) from error


def _ends_in_a_whole_strip(data: bytes, tags: Directory) -> bool:
    """Whether all is sound but that the last strip has more rows than the picture, which libtiff warns of, too."""
    rows, strips = tags.number(_STRIP_ROWS), len(tags.numbers(_STRIPS))
    if not tags.height < rows * strips < tags.height + rows or _alone(tags):
        return False
    try:
        _opened(data, tags, {_HEIGHT: (rows * strips,)}).avg()
    except pyvips.Error:
        return False
    return True


def _verify_deflate(packed: memoryview, most: int) -> None:
    """libtiff stops when it has all rows, ahead of the checksum."""
    inflater, length = zlib.decompressobj(), 0
    waiting: bytes | memoryview = packed
    try:
        while not inflater.eof:
            piece = inflater.decompress(waiting, _BLOCK_BYTES)
            waiting = inflater.unconsumed_tail
            length += len(piece)
            if length > most or not (piece or waiting or inflater.eof):
                raise _damaged("a strip has more pixel data than it can hold, or no end")
    except zlib.error as error:
        raise _damaged(str(error)) from error


def _parts(tags: Directory, file_bytes: int) -> Iterator[tuple[int, int]]:
    """Where strips or tiles lie, and their bytes; those that a sparse file leaves out are left out here."""
    width, rows = _part_size(tags)
    count = -(-tags.width // width) * -(-tags.height // rows) * (tags.channels if _alone(tags) else 1)
    tiled = _TILES in tags.fields
    starts = tags.numbers(_TILES if tiled else _STRIPS)[:count]
    sizes = tags.numbers(_TILE_BYTES if tiled else _STRIP_BYTES) or (file_bytes,) * len(starts)
    return ((start, size) for start, size in zip(starts, sizes, strict=False) if start and size)


def _part_size(tags: Directory) -> tuple[int, int]:
    """A strip's or tile's width and height. Raises Unconvertible where that is none, or a tile of a giant's picture."""
    if _TILES not in tags.fields:
        size = tags.width, min(tags.number(_STRIP_ROWS, tags.height), tags.height)
    else:
        size = tags.number(_TILE_WIDTH), tags.number(_TILE_HEIGHT)
    if not 0 < size[0] * size[1] <= tags.width * tags.height + _SPARE_PIXELS:
        raise _damaged(f"its strips or tiles are of {size[0]} x {size[1]} pixels")
    return size


def _alone(tags: Directory) -> bool:
    """Whether each colour has strips or tiles of its own."""
    return tags.number(_PLANAR, 1) == 2


def _row_bytes(tags: Directory) -> int:
    """Of a strip or tile; where each colour lies alone, of one of them."""
    return -(-_part_size(tags)[0] * tags.bits * (1 if _alone(tags) else tags.channels) // 8)


def _as_strips(tags: Directory) -> dict[int, tuple[int, ...]]:
    """Tags that make libvips decode every strip and hear every warning: of tiles it hears none, so they become strips;
    rows of PackBits become grey bytes, whatever they mean."""
    alone = _alone(tags)
    changed: dict[int, tuple[int, ...]] = {}
    planes = tags.channels if alone else 1
    if _TILES in tags.fields:
        starts, sizes = zip(*_parts(tags, 0), strict=True) if any(_parts(tags, 0)) else ((), ())
        width, rows = _part_size(tags)
        changed = {_WIDTH: (width,), _HEIGHT: (rows * len(starts),), _STRIP_ROWS: (rows,)}
        changed |= {_STRIPS: starts, _STRIP_BYTES: sizes}
        changed |= dict.fromkeys((_TILES, _TILE_BYTES, _TILE_WIDTH, _TILE_HEIGHT), ())
        if alone:
            planes = 1
            changed |= {_PLANAR: (1,), _CHANNELS: (1,), _BITS: (tags.bits,), _PHOTOMETRIC: (_MIN_IS_BLACK,), _EXTRA: ()}
    if tags.number(_COMPRESSION) == _PACKBITS:
        changed |= {_WIDTH: (_row_bytes(tags),), _CHANNELS: (planes,), _BITS: (8,) * planes, _NUMBERS: (), _PALETTE: ()}
        changed |= {_PHOTOMETRIC: (_MIN_IS_BLACK,), _EXTRA: (0,) * (planes - 1)}
    return changed


def is_for_libvips(tags: Directory) -> bool:
    """What Pillow cuts to 8 bits, does not invert or does not know: 16 bits a sample, CMYK with alpha."""
    return tags.bits == 16 or (tags.number(_PHOTOMETRIC) == _CMYK and tags.extra[:1] in ((_ALPHA,), (_PREMULTIPLIED,)))


def read(data: bytes, tags: Directory) -> Picture:
    """The first picture, where `is_for_libvips`. Raises Unconvertible."""
    photometric, channels = tags.number(_PHOTOMETRIC), tags.channels
    colour = _COLOURS.get(photometric, 0)
    uneven = len(set(tags.numbers(_BITS, 1))) > 1
    mixed = _PREMULTIPLIED in tags.extra and len(tags.extra) > 1  # libvips would divide by the last of them
    if not colour or channels != colour + len(tags.extra) or mixed or uneven or (photometric == _LAB and tags.extra):
        raise unsupported(tags)
    try:
        image = _opened(data, tags, {_EXTRA: tags.extra} if tags.extra else {})
        alpha = tags.extra[:1] in ((_ALPHA,), (_PREMULTIPLIED,))
        samples = _in_colours(image, colour, photometric, alpha, tags.profile)
    except pyvips.Error as error:
        raise _undecoded(error) from error
    samples = upright(samples, tags.number(_ORIENTATION, 1))
    profile = tags.profile if photometric not in (_CMYK, _LAB) else None
    return colours.described(samples, profile, "tiff", frames=1 + tags.more)


def _in_colours(image: pyvips.Image, colour: int, photometric: int, alpha: bool, profile: bytes | None) -> Samples:
    """Grey or RGB, with the alpha behind."""
    if photometric == _LAB:
        return colours.of_deep_lab(image)
    everything: Samples = image.numpy()
    everything = everything.reshape(image.height, image.width, -1)
    if photometric != _CMYK:
        return np.ascontiguousarray(everything[:, :, : colour + alpha])
    inks = np.ascontiguousarray(everything[:, :, :4])
    shown = colours.of_cmyk(inks, profile)
    return np.concatenate([shown, everything[:, :, 4:5]], axis=2) if alpha else shown


def _opened(data: bytes, tags: Directory, changed: dict[int, tuple[int, ...]]) -> pyvips.Image:
    """The first picture with the decoder's own tags only, some of them changed: all warnings are then of the pixels."""
    file = _rewritten(data, tags, changed)
    return pyvips.Image.new_from_buffer(file, "", access="sequential", fail_on="warning")


def _rewritten(data: bytes, tags: Directory, changed: dict[int, tuple[int, ...]]) -> bytes:
    """A TIFF with a new directory at the end; numbers of 64 bits become 32."""
    fields = {tag: field for tag, field in tags.fields.items() if tag in _DECODERS_TAGS}
    wide = {tag: tags.numbers(tag) for tag, (kind, _) in fields.items() if kind == _LONG8}
    for tag, numbers in (wide | changed).items():
        kind = _SHORT if max(numbers, default=0) < 1 << 16 else _LONG
        fields[tag] = kind, struct.pack(f"{tags.order}{len(numbers)}{_CODES[kind]}", *numbers)
    fields = {tag: field for tag, field in sorted(fields.items()) if field[1]}
    at = len(data) + len(data) % 2
    free = at + 2 + 12 * len(fields) + 4
    entries, contents = [], []
    for tag, (kind, content) in fields.items():
        entries.append(struct.pack(f"{tags.order}HHI", tag, kind, len(content) // _SIZES[kind]))
        if len(content) <= 4:
            entries.append(content.ljust(4, b"\0"))
        else:
            entries.append(struct.pack(f"{tags.order}I", free))
            contents.append(content + bytes(len(content) % 2))
            free += len(contents[-1])
    head = {"<": b"II*\0", ">": b"MM\0*"}[tags.order] + struct.pack(f"{tags.order}I", at)
    count = struct.pack(f"{tags.order}H", len(fields))
    return b"".join([head, memoryview(data)[8:], bytes(len(data) % 2), count, *entries, bytes(4), *contents])


def _damaged(text: str) -> Unconvertible:
    return Unconvertible(Reason.DAMAGED, f"tiff: {text.strip()[:300]}")


def _undecoded(error: pyvips.Error) -> Unconvertible:
    return _damaged(str(error.detail).strip() or "its pixel data can't be decoded")

"""Every kind of source keeps its numbers: judged against Pillow's decode, and OpenCV's or libvips's for 16 bits."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import msgspec
import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as some
from picture_bytes import ARITHMETIC_JPEG, board, chunk, header, interlaced_png, png_of, with_chunks
from PIL import Image

from fusebus.convert import Format, Reason, Target, Unconvertible, convert
from fusebus.convert.deflating import FAST_LEVEL, GRAIN_LEVEL, SOME_STRIPS, best_way, fast, is_searched, searched_whole
from fusebus.convert.filters import STRIP_BYTES, Filter, Strips
from fusebus.convert.picture import Picture
from fusebus.convert.png import encode_png
from fusebus.vision.formats import verify_png_checksums

Make = Callable[..., bytes]
Same = Callable[[bytes, bytes], None]
PNG, SMALL, WEBP = Target(), Target(small=True), Target(format=Format.WEBP)
SMALL_WEBP = Target(format=Format.WEBP, small=True)

ODD = {
    "jpeg": ("JPEG", "RGB", {"quality": 90}),
    "jpeg progressive": ("JPEG", "RGB", {"progressive": True}),
    "jpeg 4:4:4": ("JPEG", "RGB", {"subsampling": 0, "quality": 97}),
    "jpeg 4:2:2": ("JPEG", "RGB", {"subsampling": 1}),
    "jpeg rgb": ("JPEG", "RGB", {"keep_rgb": True}),
    "jpeg grey": ("JPEG", "L", {}),
    "jpeg cmyk": ("JPEG", "CMYK", {}),
    "jpeg restarts": ("JPEG", "RGB", {"restart_marker_blocks": 3}),
    "png": ("PNG", "RGB", {}),
    "png grey": ("PNG", "L", {}),
    "png 1 bit": ("PNG", "1", {}),
    "png grey alpha": ("PNG", "LA", {}),
    "png rgba": ("PNG", "RGBA", {}),
    "png palette": ("PNG", "P", {}),
    "png palette 4 bits": ("PNG", "P", {"bits": 4}),
    "png palette clear colour": ("PNG", "P", {"transparency": 3}),
    "png palette clear colours": ("PNG", "P", {"transparency": bytes(range(0, 250, 5))}),
    "png grey clear": ("PNG", "L", {"transparency": 100}),
    "png rgb clear": ("PNG", "RGB", {"transparency": (100, 90, 80)}),
    "webp": ("WEBP", "RGB", {"quality": 80}),
    "webp lossless": ("WEBP", "RGBA", {"lossless": True}),
    "tiff": ("TIFF", "RGB", {}),
    "tiff lzw": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "tiff jpeg": ("TIFF", "RGB", {"compression": "jpeg"}),
    "tiff fax": ("TIFF", "1", {"compression": "group4"}),
    "tiff palette": ("TIFF", "P", {}),
    "tiff cmyk": ("TIFF", "CMYK", {}),
    "tiff alpha": ("TIFF", "RGBA", {}),
    "gif": ("GIF", "P", {}),
    "gif clear": ("GIF", "P", {"transparency": 0}),
    "bmp": ("BMP", "RGB", {}),
    "bmp palette": ("BMP", "P", {}),
}


@pytest.mark.parametrize("target", [PNG, SMALL, WEBP], ids=lambda target: target.name)
@pytest.mark.parametrize("kind", ODD)
def test_pixels_are_those_of_the_reference_decode(kind: str, target: Target, file: Make, same_pixels: Same) -> None:
    image_format, mode, options = ODD[kind]
    source = file(image_format, mode, **options)
    made = convert(source, target)
    same_pixels(source, made.data)
    if target.format is Format.PNG:
        verify_png_checksums(made.data)
    assert made.source_format == image_format.lower()


def test_small_webp_keeps_pixels_too(file: Make, same_pixels: Same) -> None:
    source = file("PNG", "RGBA")
    same_pixels(source, convert(source, SMALL_WEBP).data)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once_and_for_all(kind: str, turn: int, file: Make, same_pixels: Same) -> None:
    tags = Image.Exif()
    tags[274] = turn
    source = file(kind, exif=tags, **({"lossless": True} if kind == "WEBP" else {}))
    made = convert(source, PNG)
    assert (made.width, made.height) == ((97, 61) if turn < 5 else (61, 97))
    same_pixels(source, made.data)
    assert 274 not in Image.open(io.BytesIO(made.data)).getexif()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 3), (1, 3000), (3000, 1), (9, 700)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pictures_of_a_pixel_or_a_line(size: tuple[int, int], mode: str, file: Make, same_pixels: Same) -> None:
    source = file("JPEG", mode, Image.fromarray(board(*size)))
    for target in (PNG, SMALL, WEBP):
        same_pixels(source, convert(source, target).data)


def test_an_arithmetic_jpeg(file: Make, same_pixels: Same) -> None:
    same_pixels(ARITHMETIC_JPEG, convert(ARITHMETIC_JPEG, PNG).data)


@pytest.mark.parametrize("turn", [1, 5, 6, 8])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_stay_sixteen(channels: int, turn: int) -> None:
    deep = np.random.default_rng(1).integers(0, 65_536, (31, 45, channels)).astype(np.uint16)
    source = bytes(cv2.imencode(".png", deep)[1])
    tags = Image.Exif()
    tags[274] = turn
    made = convert(with_chunks(source, chunk(b"eXIf", tags.tobytes()[6:])), PNG)
    assert made.mode == {1: "L;16", 3: "RGB;16", 4: "RGBA;16"}[channels]
    found = cv2.imdecode(np.frombuffer(made.data, np.uint8), cv2.IMREAD_UNCHANGED).reshape(made.height, made.width, -1)
    expected = {
        1: deep,
        5: deep.transpose(1, 0, 2),
        6: np.rot90(deep, -1),
        8: np.rot90(deep, 1),
    }[turn]
    np.testing.assert_array_equal(found, expected)


def test_grey_with_alpha_of_sixteen_bits_stays_so() -> None:
    deep = np.random.default_rng(2).integers(0, 65_536, (7, 5, 2)).astype(np.uint16)
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in deep)
    made = convert(png_of(header(5, 7, 16, 4), rows), PNG)
    assert made.mode == "LA;16"
    vips = pyvips.Image.new_from_buffer(made.data, "").numpy()
    np.testing.assert_array_equal(vips, deep)


@pytest.mark.parametrize(
    ("depth", "unused_bits"), [(1, 0), (2, 0), (2, 0x8000), (4, 0), (4, 0x8000), (8, 0), (8, 0x8000), (16, 0)]
)
def test_a_transparent_grey_is_an_alpha_channel_at_every_depth(depth: int, unused_bits: int) -> None:
    """What a pixel shows is scaled to 8 bits, or stays 16; of the transparent grey only as many bits count."""
    most = (1 << depth) - 1
    numbers = np.linspace(0, most, 16).astype(np.uint16).reshape(2, 8)
    clear = int(numbers[1, 3])
    bits = np.unpackbits(numbers.astype(">u2").view(np.uint8).reshape(2, 8, 2), axis=2)[:, :, 16 - depth :]
    rows = b"".join(b"\x00" + np.packbits(row).tobytes() for row in bits)
    stated = chunk(b"tRNS", (clear | unused_bits).to_bytes(2, "big"))
    made = convert(png_of(header(8, 2, depth, 0), rows, stated), PNG)
    shown_most = 65_535 if depth == 16 else 255
    expected = np.stack([numbers.astype(int) * shown_most // most, (numbers != clear) * shown_most], axis=2)
    np.testing.assert_array_equal(pyvips.Image.new_from_buffer(made.data, "").numpy(), expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_an_alpha_channel(depth: int) -> None:
    colours = np.random.default_rng(4).integers(0, 1 << depth, (3, 5, 3)).astype(">u2" if depth == 16 else np.uint8)
    rows = b"".join(b"\x00" + row.tobytes() for row in colours)
    clear = colours[1, 2].astype(">u2")
    made = convert(png_of(header(5, 3, depth, 2), rows, chunk(b"tRNS", clear.tobytes())), PNG)
    opacity = np.any(colours != clear, axis=2, keepdims=True) * ((1 << depth) - 1)
    found = pyvips.Image.new_from_buffer(made.data, "").numpy()
    np.testing.assert_array_equal(found, np.concatenate([colours, opacity], axis=2))


def test_deep_grey_png_in_a_colour_profile_becomes_colour() -> None:
    profile = pyvips.Operation.call("profile_load", "srgb")
    deep = np.random.default_rng(2).integers(0, 65_536, (7, 5, 2)).astype(np.uint16)
    for channels, kind in ((1, 0), (2, 4)):
        rows = b"".join(b"\x00" + row[:, :channels].astype(">u2").tobytes() for row in deep)
        packed = chunk(b"iCCP", b"x\x00\x00" + zlib.compress(profile))
        found = pyvips.Image.new_from_buffer(convert(png_of(header(5, 7, 16, kind), rows, packed), PNG).data, "")
        assert found.get("icc-profile-data") == profile
        np.testing.assert_array_equal(found.numpy(), deep[:, :, (0, 0, 0, 1)[: channels + 2]])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_of_a_tiff_stay_sixteen(channels: int) -> None:
    deep = np.random.default_rng(3).integers(0, 65_536, (31, 45, channels)).astype(np.uint16)
    vips = pyvips.Image.new_from_memory(deep.tobytes(), 45, 31, channels, "ushort")
    vips = vips.copy(interpretation="grey16" if channels == 1 else "rgb16")
    made = convert(vips.tiffsave_buffer(compression="lzw"), PNG)
    found = pyvips.Image.new_from_buffer(made.data, "").numpy().reshape(31, 45, channels)
    np.testing.assert_array_equal(found, deep)


def test_webp_refuses_what_it_can_not_hold() -> None:
    deep = bytes(cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1])
    with pytest.raises(Unconvertible) as refused:
        convert(deep, WEBP)
    assert refused.value.reason is Reason.UNSUPPORTED_DEPTH
    wide = bytes(cv2.imencode(".png", np.zeros((1, 16_384), np.uint8))[1])
    with pytest.raises(Unconvertible) as refused:
        convert(wide, WEBP)
    assert refused.value.reason is Reason.UNSUPPORTED_SIZE


def test_numbers_of_32_bits_are_refused(file: Make) -> None:
    with pytest.raises(Unconvertible) as refused:
        convert(file("TIFF", "F"), PNG)
    assert refused.value.reason is Reason.UNSUPPORTED_DEPTH


def test_an_interlaced_png(same_pixels: Same) -> None:
    source = interlaced_png(board(33, 21))
    same_pixels(source, convert(source, PNG).data)


def test_a_palette_shorter_than_its_indices_shows_black(same_pixels: Same) -> None:
    rows = b"".join(b"\x00" + bytes([0, 1, 2, 3]) for _ in range(3))
    source = png_of(header(4, 3, 8, 3), rows, chunk(b"PLTE", bytes(range(10, 16))))
    same_pixels(source, convert(source, PNG).data)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_pictures_the_first_is_taken_and_the_number_told(kind: str, same_pixels: Same) -> None:
    out = io.BytesIO()
    first, second = (Image.fromarray(board(40, 30, seed)) for seed in (1, 2))
    first.save(out, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    made = convert(out.getvalue(), PNG)
    assert made.frames == 2
    same_pixels(out.getvalue(), made.data)


def test_the_same_bytes_give_the_same_bytes(file: Make) -> None:
    source = file("JPEG")
    for target in (PNG, SMALL, WEBP):
        assert convert(source, target).data == convert(source, target).data


@settings(max_examples=60, deadline=None)
@given(
    width=some.integers(1, 60),
    height=some.integers(1, 40),
    channels=some.sampled_from([1, 2, 3, 4]),
    deep=some.booleans(),
    small=some.booleans(),
    seed=some.integers(0, 1_000),
)
def test_whatever_the_samples_png_keeps_them(
    width: int, height: int, channels: int, deep: bool, small: bool, seed: int
) -> None:
    kind = np.uint16 if deep else np.uint8
    samples = np.random.default_rng(seed).integers(0, np.iinfo(kind).max + 1, (height, width, channels)).astype(kind)
    made = encode_png(Picture(samples=samples, format="png"), small=small)
    found = pyvips.Image.new_from_buffer(made, "", fail_on="warning").numpy().reshape(samples.shape)
    np.testing.assert_array_equal(found, samples)


@pytest.mark.parametrize("smooth", [True, False])
def test_either_filter_keeps_a_large_picture(smooth: bool, same_pixels: Same) -> None:
    """Large enough for the filter to be chosen, in several strips."""
    random = np.random.default_rng(5)
    grain = random.integers(-6, 7, (500, 700, 3))
    slope = np.add.outer(np.arange(500), np.arange(700))[:, :, None] // 8 if smooth else np.full((500, 700, 1), 90)
    stripes = (np.arange(700) % 2 * 60)[None, :, None] * (not smooth)
    source = bytes(cv2.imencode(".bmp", np.clip(slope + grain + stripes, 0, 255).astype(np.uint8))[1])
    made = convert(source, PNG)
    same_pixels(source, made.data)
    used = {row[0] for row in _rows(made.data, 700 * 3)}
    assert used == ({3} if smooth else {2})


@pytest.mark.parametrize("grain", [0.7, 2.0, 8.0, 30.0])
def test_the_level_suits_the_picture(grain: float) -> None:
    strips = Strips(_photograph(grain), 3)
    way = msgspec.structs.replace(best_way(strips), search=1.0)
    smooth, grainy = (
        sum(map(len, fast(strips, msgspec.structs.replace(way, level=level)))) for level in (FAST_LEVEL, GRAIN_LEVEL)
    )
    assert smooth != grainy
    assert sum(map(len, fast(strips, way))) <= 1.01 * min(smooth, grainy)


def _photograph(own: float, *, shared: float = 0.0) -> np.ndarray:
    """A slope under noise of which some is each colour's own and some is all colours' alike."""
    slope = np.add.outer(np.arange(500), np.arange(700))[:, :, None] // 8
    random = np.random.default_rng(5)
    noise = random.normal(0, shared, (500, 700, 1)) + random.normal(0, own, (500, 700, 3))
    return np.clip(60 + slope + noise, 0, 255).astype(np.uint8).reshape(500, -1)


def test_copies_are_searched_where_they_save_something() -> None:
    """The more the colours rise and fall together, the more pixels there are twice."""
    pictures = _photograph(3.0), _photograph(0.25, shared=8.0), _photograph(0.0, shared=8.0)
    ways = [best_way(Strips(rows, 3)) for rows in pictures]
    assert [way.search for way in ways] == [0.0, SOME_STRIPS, 1.0]
    for rows, way in zip(pictures, ways, strict=True):
        sizes = [
            sum(map(len, fast(Strips(rows, 3), msgspec.structs.replace(way, search=share)))) for share in (0, 0.35, 1)
        ]
        assert sizes == sorted(sizes, reverse=way.search > 0)


@pytest.mark.parametrize("search", [0.0, 0.2, 0.35, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("pixel_bytes", [1, 3, 8])
def test_strips_of_both_kinds_make_one_stream(search: float, pixel_bytes: int) -> None:
    """Of rows that come again within the window, each strip beginning with another: a copy from the wrong one shows."""
    some_rows = np.random.default_rng(7).integers(0, 256, (7, 500 * pixel_bytes), np.uint8)
    rows = np.tile(some_rows, (9 + (12 << 19) // some_rows.size, 1))
    strips = Strips(rows, pixel_bytes)
    tops = [top % 7 for top, _ in strips.ranges()]
    assert len(tops) > 10 and len(set(tops)) == 7
    way = msgspec.structs.replace(searched_whole(Filter.NONE), search=search, runs=Filter.NONE)
    filtered = b"".join(strips.filtered(Filter.NONE, *part).tobytes() for part in strips.ranges())
    assert zlib.decompress(b"".join(fast(strips, way))) == filtered


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.5, 1.0])
def test_a_share_of_the_strips_is_searched_and_never_more(share: float) -> None:
    chosen = np.cumsum([is_searched(number, share) for number in range(1_000)])
    wanted = share * np.arange(1, 1_001)
    assert ((chosen <= wanted) & (chosen > wanted - 1)).all()


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(640, 480, 6), (700, 500, 6), (1600, 1200, 11), (4000, 3000, 69), (200, 100, 1), (300, 200, 2), (40_000, 5, 5),
     (200_000, 3, 3), (400_000, 1, 1), (1, 1, 1)],
)  # fmt: skip
def test_a_picture_has_strips_to_choose_from_and_none_is_large(width: int, height: int, expected: int) -> None:
    strips = Strips(np.zeros((height, 3 * width), np.uint8), 3)
    assert len(list(strips.ranges())) == expected
    assert strips.most_bytes <= 1.5 * STRIP_BYTES + 3 * width + 1


@pytest.mark.parametrize("height", [1, 2, 3])
def test_few_wide_rows_make_one_stream(height: int) -> None:
    rows = np.random.default_rng(height).integers(0, 9, (height, 600_000), np.uint8)
    strips = Strips(rows, 3)
    way = msgspec.structs.replace(searched_whole(Filter.NONE), search=SOME_STRIPS, runs=Filter.NONE)
    filtered = b"".join(strips.filtered(Filter.NONE, *part).tobytes() for part in strips.ranges())
    assert zlib.decompress(b"".join(fast(strips, way))) == filtered


def test_a_picture_that_is_searched_in_part_keeps_its_pixels(same_pixels: Same) -> None:
    rows = _photograph(0.25, shared=8.0)
    assert best_way(Strips(rows, 3)).search == SOME_STRIPS
    source = bytes(cv2.imencode(".bmp", rows.reshape(500, 700, 3)[:, :, ::-1])[1])
    same_pixels(source, convert(source, PNG).data)


@pytest.mark.parametrize("own", [0.0, 0.3, 3.0, 12.0])
def test_small_is_never_larger(own: float) -> None:
    """Not even where the sample, a band at each quarter, is not like the rest."""
    pixels = _photograph(own, shared=4.0)
    for rows in (pixels, np.concatenate([pixels[:100], _photograph(2.0)[:50], pixels[100:400], _photograph(2.0)[50:]])):
        picture = Picture(samples=rows.reshape(len(rows), 700, 3), format="png")
        assert len(encode_png(picture, small=True)) <= len(encode_png(picture))


def _rows(png: bytes, row_bytes: int) -> list[bytes]:
    from picture_bytes import chunks

    raw = zlib.decompress(b"".join(content for kind, content in chunks(png) if kind == b"IDAT"))
    return [raw[at : at + row_bytes + 1] for at in range(0, len(raw), row_bytes + 1)]


def test_a_header_says_what_follows(file: Make) -> None:
    made = convert(file("JPEG"), PNG).data
    assert struct.unpack(">IIBBBBB", made[16:29]) == (97, 61, 8, 2, 0, 0, 0)

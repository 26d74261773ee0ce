import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_bytes import ARITHMETIC_JPEG
from PIL import Image

from fusebus.vision import Damaged, ImageError, NotAnImage, TooManyPixels, decode, encode_jpeg, formats, inspect


def board(width: int = 96, height: int = 64) -> np.ndarray:
    """Smooth and asymmetric in both axes, so that orientation shows and JPEG loses little."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 127 // (width + height)], axis=2).astype(np.uint8)


def saved(pixels: np.ndarray, image_format: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, image_format, **options)
    return out.getvalue()


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112] = orientation
    found[0x010F] = "Somebody's camera"
    return found.tobytes()


FORMATS = [
    ("JPEG", {"quality": 95}),
    ("JPEG", {"quality": 95, "progressive": True}),
    ("PNG", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"quality": 95}),
]


@pytest.mark.parametrize(("image_format", "options"), FORMATS)
def test_each_format_is_known_by_its_first_bytes_and_decoded(image_format: str, options: dict[str, object]) -> None:
    data = saved(board(), image_format, **options)
    header = inspect(data)
    assert (header.format, header.width, header.height) == (image_format.lower(), 96, 64)
    assert np.abs(decode(data).astype(int) - board()).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("image_format", "options"), FORMATS)
def test_orientation_is_applied_as_pillow_applies_it(
    image_format: str, options: dict[str, object], orientation: int
) -> None:
    from PIL import ImageOps

    data = saved(board(), image_format, exif=exif(orientation), **options)
    assert inspect(data).orientation == orientation
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = decode(data)
    assert found.shape == expected.shape
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - expected).max() <= 4  # two builds of the same JPEG decoder


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_become_rgb(mode: str) -> None:
    grey = np.repeat(board()[:, :, 1:2], 3, axis=2)
    found = decode(saved(grey, "JPEG", mode, quality=95))
    assert np.abs(found.astype(int) - grey).mean() < 4


def test_damaged_cmyk_is_refused_although_pillow_would_show_it() -> None:
    data = saved(board(400, 300), "JPEG", "CMYK", quality=95)
    with pytest.raises(Damaged):
        decode(data[: len(data) * 2 // 3])


def test_16_bit_grey_keeps_its_upper_byte() -> None:
    out = io.BytesIO()
    Image.fromarray(board()[:, :, 0].astype(np.uint16) * 257).save(out, "PNG")
    assert np.array_equal(decode(out.getvalue())[:, :, 0], board()[:, :, 0])


def test_transparency_is_laid_on_white() -> None:
    clear = np.dstack([board(), np.zeros((64, 96), np.uint8)])
    assert (decode(saved(clear, "PNG", "RGBA")) == 255).all()


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"GIF89a" + bytes(50), b"%PDF-1.7", b"<html><img>", b"MZ" + bytes(100), b"RIFF\0\0\0\0WAVEfmt "],
)
def test_what_is_no_image_is_refused_by_its_first_bytes(data: bytes) -> None:
    with pytest.raises(NotAnImage) as refused:
        inspect(data)
    assert refused.value.reason == "not_an_image"


@pytest.mark.parametrize(("image_format", "options"), FORMATS)
@pytest.mark.parametrize("kept", [0.15, 0.6, 0.95])
def test_a_truncated_file_is_damaged(image_format: str, options: dict[str, object], kept: float) -> None:
    noise = np.random.default_rng(7).integers(0, 255, (64, 96, 3), np.uint8)
    data = saved(noise, image_format, **options)
    with pytest.raises(Damaged) as refused:
        decode(data[: int(len(data) * kept)])
    assert refused.value.reason == "damaged"


def test_an_arithmetic_jpeg_is_decoded_and_damaged_wherever_it_is_cut() -> None:
    with Image.open(io.BytesIO(ARITHMETIC_JPEG)) as reference:
        assert decode(ARITHMETIC_JPEG).shape == (reference.height, reference.width, 3)
    for length in range(2, len(ARITHMETIC_JPEG)):
        with pytest.raises(ImageError):
            decode(ARITHMETIC_JPEG[:length])


def test_a_jpeg_without_its_end_or_with_a_zeroed_block_is_damaged() -> None:
    data = saved(np.random.default_rng(7).integers(0, 255, (200, 300, 3), np.uint8), "JPEG", quality=95)
    middle = len(data) // 2
    for broken in (data[:-2], data[:middle] + bytes(3_000) + data[middle + 3_000 :]):
        with pytest.raises(Damaged):
            decode(broken)


def test_one_flipped_bit_in_a_png_is_damaged() -> None:
    data = bytearray(saved(board(), "PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(Damaged):
        decode(bytes(data))


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(40)


def test_a_bomb_is_refused_by_its_header() -> None:
    jpeg = bytearray(saved(board(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    for data in (png_claiming(2**31 - 1, 2**31 - 1), png_claiming(10_001, 10_000), bytes(jpeg)):
        with pytest.raises(TooManyPixels) as refused:
            inspect(data)
        assert refused.value.reason == "too_many_pixels"
    assert inspect(png_claiming(10_000, 10_000)).width == 10_000


def test_an_empty_size_many_scans_and_many_segments_are_damaged() -> None:
    jpeg = saved(board(), "JPEG")
    comments = jpeg[:2] + b"\xff\xfe\x00\x02" * 20_001 + jpeg[2:]
    scans = jpeg[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 200 + jpeg[-2:]
    chunks = png_claiming(10, 10)[:33] + (bytes(4) + b"abCd" + bytes(4)) * 20_001
    for data in (png_claiming(0, 5), comments, scans, chunks):
        with pytest.raises(Damaged):
            inspect(data)


@settings(max_examples=300, deadline=None)
@given(
    start=st.sampled_from([saved(board(24, 16), name, **options) for name, options in FORMATS]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    kept=st.floats(0, 1),
)
def test_mangled_files_are_decoded_or_refused_but_nothing_else(
    start: bytes, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(start)
    for where, value in changes:
        data[int(where * (len(data) - 1))] = value
    with contextlib.suppress(ImageError):
        assert decode(bytes(data[: 1 + int(kept * len(data))])).dtype == np.uint8


def test_a_long_run_of_marker_bytes_takes_no_long_time() -> None:
    with pytest.raises(ImageError):
        inspect(b"\xff\xd8" + b"\xff" * 20_000_000)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("shrink", [1, 2])
@pytest.mark.parametrize("spare", [-1, 0, 5_000])
def test_pixels_may_lie_in_memory_that_is_used_again(orientation: int, shrink: int, spare: int) -> None:
    data = saved(board(95, 63), "JPEG", quality=90, exif=exif(orientation))
    expected = decode(data, shrink=shrink)
    memory = np.full(expected.size + spare, 77, np.uint8)
    found = decode(data, shrink=shrink, memory=memory)
    np.testing.assert_array_equal(found, expected)
    assert np.may_share_memory(found, memory) == (orientation == 1 and spare >= 0)
    assert (memory[expected.size :] == 77).all()


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_other_formats_have_memory_of_their_own(image_format: str) -> None:
    data, memory = saved(board(), image_format), np.zeros(96 * 64 * 3, np.uint8)
    assert not np.may_share_memory(decode(data, memory=memory), memory)


def test_a_jpeg_that_was_read_once_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(board(), "JPEG")
    segments, expected = formats.jpeg_segments(data), decode(data)
    assert [one.kind for one in segments if one.kind in (0xC0, formats.JPEG_SCAN, formats.JPEG_END)] == [
        0xC0,
        0xDA,
        0xD9,
    ]
    monkeypatch.setattr(formats, "JPEG_MARKER", None)
    np.testing.assert_array_equal(decode(data, segments=segments), expected)


def test_a_jpeg_that_is_drawn_again_keeps_its_colours_better_than_interpolated_ones_would() -> None:
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    data = saved(coarse, "JPEG", quality=90, subsampling="4:2:0")

    def error_once_more(pixels: np.ndarray) -> float:
        again = simplejpeg.decode_jpeg(encode_jpeg(pixels), "RGB").astype(float)
        return float(np.abs(again - simplejpeg.decode_jpeg(data, "RGB")).mean())

    assert error_once_more(decode(data)) < 0.8 * error_once_more(simplejpeg.decode_jpeg(data, "RGB"))

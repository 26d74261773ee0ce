"""TIFF of every kind of sample, judged against numbers that numpy made; what is damaged, and what nothing holds."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from picture_bytes import board
from PIL import Image

from fusebus.convert import Format, Reason, Target, Unconvertible, convert
from fusebus.convert.memory import DEEP_TO_PNG_BYTES, needed

Make = Callable[..., bytes]
Samples = NDArray[Any]
PNG = Target()
WHITE, BLACK, RGB, PALETTE, YCBCR, CMYK, LAB, ICC_LAB = 0, 1, 2, 3, 6, 5, 8, 9
BITS, HEIGHT, ORIENTATION, EXTRA, PROFILE = 258, 257, 274, 338, 34675
MODES = ("L", "P", "RGB", "RGBA", "CMYK", "LAB", "1")
CODES = {1: "B", 3: "H", 4: "I"}


def tiff_of(samples: Samples, photometric: int, *, order: str = "<", **more: Any) -> bytes:
    """Uncompressed, in one strip. `extra`: kinds of extra samples; `numbers`: SampleFormat; `tags`: type and numbers;
    `bits` and `body` where numpy has no such samples; `following`: says that another picture follows."""
    height, width, channels = samples.shape
    body = more.get("body", samples.astype(samples.dtype.newbyteorder(order)).tobytes())
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [width]),
        HEIGHT: (4, [height]),
        BITS: (3, [more.get("bits", 8 * samples.itemsize)] * channels),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [8]),
        277: (3, [channels]),
        278: (4, [height]),
        279: (4, [len(body)]),
        **({EXTRA: (3, more["extra"])} if "extra" in more else {}),
        **({339: (3, [more["numbers"]] * channels)} if "numbers" in more else {}),
        **more.get("tags", {}),
    }
    body += bytes(len(body) % 2)
    start = 8 + len(body)
    entries, contents = b"", b""
    for tag, (kind, numbers) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(numbers)}{CODES[kind]}", *numbers).ljust(4, b"\0")
        if len(content) > 4:
            where = start + 6 + 12 * len(tags) + len(contents)
            contents += content + bytes(len(content) % 2)
            content = struct.pack(f"{order}I", where)
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + content
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", start)
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0) + contents


def random(channels: int, dtype: type = np.uint16) -> Samples:
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max, (9, 11, channels), dtype, endpoint=True)


def shown(data: bytes) -> Samples:
    """libvips's reading of the PNG that it becomes."""
    found = pyvips.Image.new_from_buffer(convert(data, PNG).data, "", fail_on="warning")
    samples: Samples = found.numpy()
    return samples.reshape(found.height, found.width, -1)


def divided(samples: Samples) -> Samples:
    """Without the alpha that the colours were multiplied with."""
    most, alpha = np.iinfo(samples.dtype).max, samples[:, :, -1:]
    colours = samples[:, :, :-1].astype(np.uint64) * most // np.maximum(alpha, 1)
    return np.concatenate([np.minimum(colours, most).astype(samples.dtype), alpha], axis=2)


def of_inks(inks: Samples) -> Samples:
    """CMYK without a profile: what is left of white by the ink and by black."""
    most = np.iinfo(inks.dtype).max
    left = 1 - inks / most
    return np.rint(most * left[:, :, :3] * left[:, :, 3:4]).astype(inks.dtype)


GREY, GREY_ALPHA, COLOUR, FOUR, FIVE = (random(channels) for channels in (1, 2, 3, 4, 5))
INKS_ALPHA = random(5, np.uint8)
SIXTEEN = {
    "grey": (GREY, BLACK, {}, GREY),
    "grey, white is zero": (GREY, WHITE, {}, 65_535 - GREY),
    "grey and alpha": (GREY_ALPHA, BLACK, {"extra": [2]}, GREY_ALPHA),
    "grey and alpha, white is zero": (GREY_ALPHA, WHITE, {"extra": [2]}, GREY_ALPHA ^ np.array([65_535, 0], np.uint16)),
    "grey and something": (GREY_ALPHA, BLACK, {"extra": [0]}, GREY_ALPHA[:, :, :1]),
    "grey times alpha": (GREY_ALPHA, BLACK, {"extra": [1]}, divided(GREY_ALPHA)),
    "rgb": (COLOUR, RGB, {}, COLOUR),
    "rgb with foreign tags": (COLOUR, RGB, {"tags": {50_000: (4, [3]), 37_724: (1, [1] * 40)}}, COLOUR),
    "rgb and alpha": (FOUR, RGB, {"extra": [2]}, FOUR),
    "rgb times alpha": (FOUR, RGB, {"extra": [1]}, divided(FOUR)),
    "rgb and something": (FOUR, RGB, {"extra": [0]}, FOUR[:, :, :3]),
    "rgb and what nothing tells": (FOUR, RGB, {}, FOUR),
    "rgb, alpha and something": (FIVE, RGB, {"extra": [2, 0]}, FIVE[:, :, :4]),
    "cmyk": (FOUR, CMYK, {}, of_inks(FOUR)),
    "cmyk and alpha": (FIVE, CMYK, {"extra": [2]}, np.dstack([of_inks(FIVE), FIVE[:, :, 4]])),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", SIXTEEN)
def test_sixteen_bits_are_what_the_file_says(kind: str, order: str) -> None:
    samples, photometric, options, expected = SIXTEEN[kind]
    np.testing.assert_array_equal(shown(tiff_of(samples, photometric, order=order, **options)), expected)


@pytest.mark.parametrize(("extra", "expected"), [(2, INKS_ALPHA), (1, divided(INKS_ALPHA)), (0, INKS_ALPHA[:, :, :4])])
def test_cmyk_with_alpha_keeps_it(extra: int, expected: Samples) -> None:
    found = shown(tiff_of(INKS_ALPHA, CMYK, extra=[extra])).astype(int)
    wanted = np.dstack([of_inks(expected), expected[:, :, 4:]])
    np.testing.assert_allclose(found, wanted, atol=extra == 1)  # the quotient is rounded


@pytest.mark.parametrize("turn", range(1, 9))
def test_sixteen_bits_are_turned_upright(turn: int) -> None:
    expected = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.transpose(1, 0, 2),
        6: np.rot90(GREY, -1),
        7: np.rot90(GREY, 2).transpose(1, 0, 2),
        8: np.rot90(GREY),
    }[turn]
    np.testing.assert_array_equal(shown(tiff_of(GREY, BLACK, tags={ORIENTATION: (3, [turn])})), expected)


def test_grey_of_twelve_bits_is_scaled_to_sixteen() -> None:
    numbers = np.arange(4_096).reshape(64, 64)
    pairs = numbers.reshape(-1, 2)
    body = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    data = tiff_of(numbers[:, :, None], BLACK, bits=12, body=body.astype(np.uint8).tobytes())
    np.testing.assert_array_equal(shown(data)[:, :, 0], np.rint(numbers * 65_535 / 4_095).astype(np.uint16))
    assert needed(data, Format.PNG) == numbers.size * DEEP_TO_PNG_BYTES


def test_cielab_of_sixteen_bits_is_of_the_white_that_icc_profiles_have() -> None:
    """L* in 65,535ths of 100; a* and b* in 256ths: CIE 15 and IEC 61966-2-1, from D50 by Bradford's matrix."""
    lab = np.array([[50, 0, 0], [70, 20, 30], [30, -10, -20], [90, -5, 10], [100, 0, 0], [0, 0, 0]], float)
    stored = np.rint(lab * [655.35, 256, 256]).astype(np.int64).astype(np.uint16).reshape(2, 3, 3)
    y = (lab[:, 0] + 16) / 116
    f = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249]
    to_linear = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(xyz @ np.array(to_linear).T, 0, 1)
    expected = 65_535 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(shown(tiff_of(stored, LAB)).reshape(-1, 3), expected, atol=65_535 / 256)


def test_cmyk_of_sixteen_bits_goes_through_its_profile_as_eight_bits_do() -> None:
    profile = pyvips.Operation.call("profile_load", "cmyk")
    eight = random(4, np.uint8)
    tags = {PROFILE: (1, list(profile))}
    deep = shown(tiff_of(eight.astype(np.uint16) * 257, CMYK, tags=tags))
    np.testing.assert_allclose(deep / 257, shown(tiff_of(eight, CMYK, tags=tags)), atol=1.5)
    assert abs(deep / 257 - of_inks(eight)).max() > 20


@pytest.mark.parametrize("channels", [1, 2])
def test_deep_grey_in_a_colour_profile_becomes_colour(channels: int) -> None:
    samples = random(channels)
    profile = pyvips.Operation.call("profile_load", "srgb")
    made = convert(tiff_of(samples, BLACK, extra=[2] * (channels - 1), tags={PROFILE: (1, list(profile))}), PNG)
    found = pyvips.Image.new_from_buffer(made.data, "")
    assert found.get("icc-profile-data") == profile
    np.testing.assert_array_equal(found.numpy(), samples[:, :, (0, 0, 0, 1)[: channels + 2]])


REFUSED = {
    "grey of 32 bits": (tiff_of(GREY.astype(np.uint32), BLACK), Reason.UNSUPPORTED_DEPTH, "32 bits a sample"),
    "rgb of 32 bits": (tiff_of(COLOUR.astype(np.uint32), RGB), Reason.UNSUPPORTED_DEPTH, "32 bits a sample"),
    "rgb, floating": (tiff_of(COLOUR.astype(np.float32), RGB, numbers=3), Reason.UNSUPPORTED_DEPTH, "floating-point"),
    "grey, half floats": (tiff_of(GREY.view(np.float16), BLACK, numbers=3), Reason.UNSUPPORTED_DEPTH, "floating-point"),
    "grey, signed": (tiff_of(GREY.view(np.int16), BLACK, numbers=2), Reason.UNSUPPORTED_DEPTH, "signed samples of 16"),
    "rgb, signed": (tiff_of(COLOUR.view(np.int16), RGB, numbers=2), Reason.UNSUPPORTED_DEPTH, "signed samples of 16"),
    "grey, signed bytes": (
        tiff_of(INKS_ALPHA[:, :, :1], BLACK, numbers=2), Reason.UNSUPPORTED_DEPTH, "signed samples of 8 bits"
    ),
    "rgb of 12 bits": (
        tiff_of(np.zeros((2, 2, 3), np.uint8), RGB, bits=12, body=bytes(18)), Reason.UNSUPPORTED_DEPTH, "3 x 12 bits"
    ),
    "palette of 16 bits": (tiff_of(GREY, PALETTE), Reason.UNSUPPORTED_FORMAT, "photometric interpretation 3"),
    "lab with alpha": (tiff_of(FOUR, LAB, extra=[2]), Reason.UNSUPPORTED_FORMAT, "photometric interpretation 8"),
    "another lab": (tiff_of(COLOUR, ICC_LAB), Reason.UNSUPPORTED_FORMAT, "photometric interpretation 9"),
    "seven samples": (tiff_of(random(7), RGB, extra=[2, 0, 0, 0]), Reason.UNSUPPORTED_FORMAT, "7 x 16 bits"),
    "jpeg 2000 inside": (tiff_of(GREY, BLACK, tags={259: (3, [34_712])}), Reason.UNSUPPORTED_FORMAT, "34712"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_refused_by_its_name_with_the_way_out(kind: str) -> None:
    data, reason, named = REFUSED[kind]
    with pytest.raises(Unconvertible, match=named) as refused:
        convert(data, PNG)
    assert refused.value.reason is reason
    assert "save it" in str(refused.value)


def test_too_many_pixels_are_refused_whoever_would_read_them() -> None:
    for photometric, samples in ((BLACK, GREY_ALPHA), (RGB, COLOUR)):
        with pytest.raises(Unconvertible) as refused:
            convert(tiff_of(samples, photometric, tags={256: (4, [20_000]), HEIGHT: (4, [5_001])}), PNG)
        assert refused.value.reason is Reason.TOO_MANY_PIXELS


def _compressed(compression: str, *, deep: bool = False, **options: Any) -> bytes:
    pixels = board(400, 300)
    image = pyvips.Image.new_from_array(pixels.astype(np.uint16) * 257 if deep else pixels)
    if deep:
        image = image.copy(interpretation="rgb16")
    elif "fax" in compression:
        image, options = image[0] > 128, {**options, "bitdepth": 1}
    return bytes(image.tiffsave_buffer(compression=compression, **options))


def _pixels(data: bytes) -> tuple[int, int]:
    """From where to where there are any, in strips or tiles."""
    tags = Image.open(BytesIO(data)).tag_v2  # type: ignore[attr-defined]
    starts, sizes = (324, 325) if 324 in tags else (273, 279)
    return min(tags[starts]), max(start + size for start, size in zip(tags[starts], tags[sizes], strict=True))


COMPRESSIONS = {
    f"{name}, {'tiles' if tile else 'strips'}{', 16 bits' * deep}{', BigTIFF' * big}": (name, tile, deep, big)
    for name in ("lzw", "deflate", "packbits", "jpeg", "ccittfax4")
    for tile in (False, True)
    for deep in (False, True)
    for big in (False, True)
    if not deep or name in ("lzw", "deflate", "packbits")
}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_zeroed_bytes_of_a_compressed_tiff_are_found(kind: str) -> None:
    name, tile, deep, big = COMPRESSIONS[kind]
    sound = _compressed(name, tile=tile, deep=deep, bigtiff=big)
    convert(sound, PNG)
    first, end = _pixels(sound)
    length = min(1_000, (end - first) // 4)
    for start in np.linspace(first, end - length, 12).astype(int)[1:-1]:
        with pytest.raises(Unconvertible) as refused:
            convert(sound[:start] + bytes(length) + sound[start + length :], PNG)
        assert refused.value.reason is Reason.DAMAGED


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_zeroed_bytes_of_a_fax_are_found(compression: str, file: Make, picture: Image.Image) -> None:
    sound = file("TIFF", "1", picture, compression=compression)
    convert(sound, PNG)
    middle = len(sound) // 2
    with pytest.raises(Unconvertible) as refused:
        convert(sound[: middle - 60] + bytes(120) + sound[middle + 60 :], PNG)
    assert refused.value.reason is Reason.DAMAGED


@pytest.mark.parametrize(
    ("compression", "mode"),
    [
        *((one, mode) for one in ("packbits", "tiff_adobe_deflate") for mode in MODES),
        *(("jpeg", mode) for mode in ("L", "RGB", "CMYK")),
    ],
)
def test_sound_ones_of_every_mode_are_not_taken_for_damaged(compression: str, mode: str, picture: Image.Image) -> None:
    out = BytesIO()
    image = Image.fromarray(cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2Lab), "LAB") if mode == "LAB" else picture
    (image if image.mode == mode else image.convert(mode)).save(out, "TIFF", compression=compression)
    assert convert(out.getvalue(), PNG).width == picture.width


def test_colours_that_lie_alone_are_proved_too() -> None:
    planes = bytes(range(99)) * 3
    packed = b"".join(bytes([98]) + planes[at : at + 99] for at in (0, 99, 198))
    starts, tags = (8, 108, 208), {259: (3, [32_773]), 284: (3, [2])}
    tags |= {273: (4, list(starts)), 279: (4, [100] * 3)}
    expected = np.repeat(np.arange(99, dtype=np.uint8).reshape(9, 11, 1), 3, axis=2)
    np.testing.assert_array_equal(shown(tiff_of(random(3, np.uint8), RGB, body=packed, tags=tags)), expected)
    with pytest.raises(Unconvertible) as refused:
        convert(tiff_of(random(3, np.uint8), RGB, body=packed[:150] + bytes(60) + packed[210:], tags=tags), PNG)
    assert refused.value.reason is Reason.DAMAGED


def test_deflated_strips_are_held_to_their_checksum() -> None:
    pixels = random(3, np.uint8)
    packed = zlib.compress(pixels.tobytes())
    tags = {259: (3, [8])}
    np.testing.assert_array_equal(shown(tiff_of(pixels, RGB, body=packed, tags=tags)), pixels)
    np.testing.assert_array_equal(shown(tiff_of(pixels, RGB, body=packed + b"spare", tags=tags)), pixels)
    bomb = zlib.compress(bytes(50_000_000))
    for spoilt in (packed[:-1] + bytes([packed[-1] ^ 1]), packed[:-4], bomb):
        with pytest.raises(Unconvertible) as refused:
            convert(tiff_of(pixels, RGB, body=spoilt, tags=tags), PNG)
        assert refused.value.reason is Reason.DAMAGED


def test_a_jpeg_strip_with_rows_behind_the_picture_is_sound() -> None:
    """libtiff warns of it as it does of damage."""
    image = pyvips.Image.new_from_array(board(400, 96))
    sound = image.tiffsave_buffer(compression="jpeg", tile_height=48)
    order = "<" if sound[:2] == b"II" else ">"
    entry = sound.index(struct.pack(f"{order}H", HEIGHT), struct.unpack_from(f"{order}I", sound, 4)[0])
    kind = struct.unpack_from(f"{order}H", sound, entry + 2)[0]
    shorter = bytearray(sound)
    struct.pack_into(f"{order}{CODES[kind]}", shorter, entry + 8, 80)
    whole = pyvips.Image.new_from_buffer(sound, "").numpy()
    np.testing.assert_array_equal(shown(bytes(shorter)), whole[:80])
    middle = 3 * len(sound) // 4
    with pytest.raises(Unconvertible) as refused:
        convert(bytes(shorter[: middle - 200] + bytes(400) + shorter[middle + 200 :]), PNG)
    assert refused.value.reason is Reason.DAMAGED


def test_sixteen_bits_of_several_pictures_are_told() -> None:
    image = pyvips.Image.new_from_array(COLOUR).copy(interpretation="rgb16")
    pages = image.join(image, "vertical").copy()
    pages.set_type(pyvips.GValue.gint_type, "page-height", image.height)
    made = convert(pages.tiffsave_buffer(), PNG)
    assert (made.frames, made.height) == (2, image.height)


def test_webp_takes_cmyk_with_alpha_and_refuses_sixteen_bits() -> None:
    webp = Target(format=Format.WEBP)
    assert convert(tiff_of(INKS_ALPHA, CMYK, extra=[2]), webp).mode == "RGBA"
    with pytest.raises(Unconvertible) as refused:
        convert(tiff_of(GREY, WHITE), webp)
    assert refused.value.reason is Reason.UNSUPPORTED_DEPTH


@pytest.mark.parametrize("compression", [7, 8, 32_773])
def test_a_small_picture_in_a_giant_tile_is_refused_before_memory_is_taken(compression: int) -> None:
    tile = {322: (4, [60_000]), 323: (4, [60_000]), 324: (4, [8]), 325: (4, [297])}
    with pytest.raises(Unconvertible, match="60000 x 60000") as refused:
        convert(tiff_of(random(3, np.uint8), RGB, tags={259: (3, [compression]), **tile}), PNG)
    assert refused.value.reason is Reason.DAMAGED


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # Pillow tells of each damaged tag
@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_random_damage_to_the_directory_is_refused_or_read_and_never_another_error(kind: str) -> None:
    name, tile, deep, big = COMPRESSIONS[kind]
    sound = _compressed(name, tile=tile, deep=deep, bigtiff=big)
    start = struct.unpack_from("<Q" if big else "<I", sound, 8 if big else 4)[0]
    dice = np.random.default_rng(5)
    for _ in range(8):
        spoilt = bytearray(sound)
        for at in dice.integers(start, min(start + 300, len(sound)), 3):
            spoilt[at] = dice.choice([0, 1, 2, 8, 255, dice.integers(256)])
        needed(bytes(spoilt), Format.PNG)
        with contextlib.suppress(Unconvertible):
            convert(bytes(spoilt), PNG)

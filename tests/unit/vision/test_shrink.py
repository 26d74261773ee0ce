import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from fusebus.vision import Damaged, Detection, decode, encode_jpeg, resize_to_model, rle, scaled, shrink_for
from fusebus.vision.boards import draw_board
from fusebus.vision.decode import shrunk


def saved(pixels: np.ndarray, image_format: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, image_format, **options)
    return out.getvalue()


def decibels(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(np.float32) - second) ** 2)))


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 2, 4, 8]), st.sampled_from(["444", "420", "422"]))
@settings(max_examples=60, deadline=None)
def test_any_jpeg_is_reduced_to_its_edges_divided_and_rounded_up(
    width: int, height: int, shrink: int, chroma: str
) -> None:
    import simplejpeg

    data = simplejpeg.encode_jpeg(np.full((height, width, 3), 90, np.uint8), 90, "RGB", chroma)
    assert decode(data, shrink=shrink).shape == (*shrunk(height, width, shrink), 3)


@pytest.mark.parametrize(
    ("image_format", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("JPEG", "CMYK", {"quality": 95}),
        ("JPEG", "L", {}),
        ("PNG", "P", {}),
    ],
)
def test_other_formats_are_reduced_too(image_format: str, mode: str, options: dict[str, object]) -> None:
    pixels = draw_board(7, (200, 150)).image
    reduced = decode(saved(pixels, image_format, mode, **options), shrink=2)
    assert reduced.shape == (75, 100, 3)
    whole = decode(saved(pixels, image_format, mode, **options))
    assert decibels(reduced, np.asarray(Image.fromarray(whole).resize((100, 75), Image.Resampling.BOX))) > 30


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_picture_is_upright_as_well(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(draw_board(7, (160, 128)).image, "JPEG", exif=exif.tobytes(), quality=95)
    whole, reduced = decode(data), decode(data, shrink=2)
    assert reduced.shape == (whole.shape[0] // 2, whole.shape[1] // 2, 3)
    assert decibels(reduced, np.asarray(Image.fromarray(whole).resize(reduced.shape[1::-1], Image.Resampling.BOX))) > 30


@pytest.mark.parametrize("mangle", [lambda data: data[: len(data) // 2], lambda data: data[:-2]])
@pytest.mark.parametrize("shrink", [2, 8])
def test_damage_is_found_in_a_reduced_picture_as_in_the_whole(mangle: object, shrink: int) -> None:
    data = saved(draw_board(7, (320, 240)).image, "JPEG", quality=90)
    with pytest.raises(Damaged):
        decode(mangle(data), shrink=shrink)


@pytest.mark.parametrize("size", [224, 336])
def test_a_reduced_picture_gives_the_model_what_the_whole_one_gives(size: int) -> None:
    data = encode_jpeg(draw_board(11, (2000, 1500)).image)
    reference = np.asarray(Image.fromarray(decode(data)).resize((size, size), Image.Resampling.BILINEAR))
    assert decibels(resize_to_model(decode(data, shrink=2), size), reference) >= 50


@pytest.mark.parametrize(
    ("width", "height", "most", "least", "shrink"),
    [
        (4000, 3000, 8_000_000, 1008, 2),
        (4000, 3000, 0, 224, 1),
        (1600, 1200, 8_000_000, 224, 1),
        (8000, 6000, 8_000_000, 1008, 4),
        (12_000, 8000, 8_000_000, 224, 4),
        (20_000, 600, 8_000_000, 504, 1),
        (3000, 3000, 8_000_000, 1501, 1),
        (30_000, 3000, 100, 224, 8),
    ],
)
def test_no_more_is_reduced_than_asked_for_and_the_models_edge_is_kept(
    width: int, height: int, most: int, least: int, shrink: int
) -> None:
    assert shrink_for(width, height, most, least) == shrink


def test_what_was_found_is_scaled_for_drawing_alone() -> None:
    corners = np.array([[10, 20], [50, 20], [50, 90]], np.int32)
    mask = rle.encode(np.zeros((8, 8), np.bool_))
    found = Detection(label="fuse neutral", score=0.9, box=(10, 20, 50, 90), mask=mask, polygons=(corners,))
    half = scaled(found, 0.5, 0.25)
    assert half.box == (5, 5, 25, 22.5)
    assert half.polygons[0].tolist() == [[5, 5], [25, 5], [25, 22]]
    assert (half.mask, found.box) == (mask, (10, 20, 50, 90))


def test_a_colour_profile_does_not_stand_in_the_way() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(draw_board(7, (320, 240)).image, "JPEG", icc_profile=profile)
    assert decode(data, shrink=4).shape == (60, 80, 3)

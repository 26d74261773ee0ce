"""First pictures of files that hold more than one, and what is kept away from the decoders."""

import io

import numpy as np
import pytest
from picture_bytes import frame, riff, vp8x
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fusebus.vision import Damaged, TooComplex, decode, inspect
from fusebus.vision.stills import jpeg_still, png_still, webp_still

RED, BLUE = (200, 20, 20), (20, 20, 200)


def picture(colour: tuple[int, int, int], mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (48, 32), colour).convert(mode)


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "MPO"])
def test_of_a_file_with_several_pictures_the_first_is_decoded(image_format: str) -> None:
    data = saved(picture(RED), image_format, save_all=True, append_images=[picture(BLUE)] * 3)
    assert np.abs(decode(data).astype(int) - RED).max() < 12


def test_texts_profiles_and_exif_reach_no_decoder() -> None:
    info = PngInfo()
    info.add_text("Comment", "private " * 1_000, zip=True)
    png = saved(picture(RED), "PNG", pnginfo=info, icc_profile=b"p" * 400, exif=Image.Exif())
    webp = saved(picture(RED), "WEBP", icc_profile=b"p" * 400, xmp=b"<private/>")
    assert b"zTXt" in png
    assert b"ICCP" in webp
    assert not any(kind in png_still(png) for kind in (b"zTXt", b"iCCP", b"eXIf"))
    assert not any(kind in webp_still(webp).file() for kind in (b"ICCP", b"XMP ", b"EXIF"))
    tags = Image.Exif()
    tags[0x010F] = "private"
    jpeg = saved(picture(RED), "JPEG", icc_profile=b"private" * 40, exif=tags, comment=b"private") + b"private"
    assert jpeg.count(b"private") == 43
    assert b"private" not in jpeg_still(jpeg)
    assert decode(jpeg_still(jpeg)).tobytes() == decode(jpeg).tobytes()


@pytest.mark.parametrize("animated", [False, True])
def test_a_webp_picture_larger_than_its_canvas_reaches_no_decoder(animated: bool) -> None:
    large = saved(Image.new("RGB", (600, 400)), "WEBP", lossless=True)
    picture = frame(0, 0, 600, 400, large) if animated else (b"VP8L", large[20:])
    with pytest.raises(Damaged, match=r"600 x 400 pixels on a canvas of 600 x 8"):
        webp_still(riff(vp8x(600, 8, 2 * animated), picture))
    assert webp_still(riff(vp8x(600, 400, 2 * animated), picture)).size == (600, 400)


def test_a_webp_has_one_header_and_no_file_in_a_frame() -> None:
    still = saved(Image.new("RGB", (600, 400)), "WEBP", lossless=True)
    with pytest.raises(Damaged, match="two headers"):
        webp_still(riff(vp8x(8, 8), vp8x(600, 400), (b"VP8L", still[20:])))
    nested = riff(vp8x(600, 400, 2), frame(0, 0, 600, 400, still))
    for _ in range(3):
        nested = riff(vp8x(600, 400, 2), frame(0, 0, 600, 400, nested))
        with pytest.raises(Damaged, match="a file in its frame"):
            webp_still(nested)


def test_a_webp_frame_of_no_size_is_damaged() -> None:
    flat = b"\x00\x00\x00\x9d\x01\x2a" + bytes(10)
    inner = riff((b"ALPH", b"\x00"), (b"VP8 ", flat))
    with pytest.raises(Damaged, match="0 x 0 pixels"):
        webp_still(riff(vp8x(8, 8, 2), frame(0, 0, 8, 8, inner)))


def test_zeros_that_fill_up_a_jpeg_are_no_damage_but_zeros_instead_of_its_data_are() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    for mode in ("RGB", "CMYK"):
        jpeg = saved(Image.fromarray(noise).convert(mode), "JPEG")
        for zeros in (1, 20, 3_000):
            assert decode(jpeg[:-2] + bytes(zeros) + jpeg[-2:]).tobytes() == decode(jpeg).tobytes()
            with pytest.raises(Damaged):
                decode(jpeg[:-102] + bytes(zeros) + jpeg[-2:])  # more than its last block of colour


def test_a_scan_whose_beginning_was_overwritten_is_damage_and_not_left_out() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (160, 160, 3), np.uint8)
    jpeg = saved(Image.fromarray(noise), "JPEG", progressive=True)
    tables = [at for at in range(len(jpeg)) if jpeg[at : at + 2] == b"\xff\xc4"]
    for at in tables[2:]:
        for length in (40, 400):
            with pytest.raises(Damaged):
                decode(jpeg[: at + 6] + bytes(length) + jpeg[at + 6 + length :])


def test_a_segment_in_the_middle_of_a_scan_ends_it_and_is_damage() -> None:
    jpeg = saved(Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)), "JPEG")
    with pytest.raises(Damaged):
        decode(jpeg[:-900] + b"\xff\xe5\x00\x04\x00\x00" + jpeg[-900:])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_png_looks_as_pillow_shows_it(mode: str) -> None:
    ramp = Image.linear_gradient("L").resize((48, 32))
    image = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257) if mode == "I;16" else ramp.convert(mode)
    found = decode(saved(image, "PNG"))
    expected = np.asarray(ramp.convert("1" if mode == "1" else "L").convert("RGB"))
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    for image_format, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        assert set(decode(saved(half, image_format, **options)).ravel()) == {127}


def test_a_webp_shorter_than_it_says_is_damaged_and_too_many_chunks_are_too_complex() -> None:
    data = saved(picture(RED), "WEBP")
    with pytest.raises(Damaged):
        decode(data[:4] + (len(data) + 100).to_bytes(4, "little") + data[8:])
    with pytest.raises(TooComplex):
        inspect(saved(picture(RED), "JPEG")[:2] + b"\xff\xfe\x00\x02" * 20_001)


def test_what_lies_between_and_behind_a_jpeg_s_parts_is_left_out_but_never_of_a_scan() -> None:
    jpeg = saved(picture(RED), "JPEG", comment=b"private")
    table, scan = jpeg.index(b"\xff\xdb"), jpeg.index(b"\xff\xda")
    clean = jpeg_still(jpeg)
    assert jpeg_still(jpeg[:table] + b"loose" + jpeg[table:] + b"behind") == clean
    assert jpeg_still(jpeg[:scan] + b"loose" + jpeg[scan:]) == clean
    cut = jpeg_still(jpeg[:-20])
    assert cut == clean[:-20]  # no end is made up
    assert jpeg_still(jpeg[: scan - 3] + b"tail") == jpeg_still(jpeg[: scan - 3]) + b"tail"
    assert jpeg_still(b"\xff\xd8\xff") == b"\xff\xd8\xff"
    overwritten = jpeg[: scan + 14] + b"\xff\xfe\x00\x04no" + jpeg[scan + 14 :]
    assert jpeg_still(overwritten) == clean[:-2].replace(jpeg[scan:-2], overwritten[scan:-2]) + b"\xff\xd9"

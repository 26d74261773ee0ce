"""What travels with the pixels: the ICC profile, where it still says the truth. Everything else stays behind."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from picture_bytes import SECRET, chunk, exif, segment, with_chunks, with_segments
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from fusebus.convert import Format, Reason, Target, Unconvertible, convert

Make = Callable[..., bytes]
PNG, WEBP = Target(), Target(format=Format.WEBP)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def relabelled(space: bytes) -> bytes:
    """A sound profile of another colour space, as far as its header goes."""
    return SRGB[:16] + space + SRGB[20:]


def kept(data: bytes) -> bytes | None:
    return Image.open(io.BytesIO(data)).info.get("icc_profile")


@pytest.mark.parametrize("target", [PNG, WEBP], ids=lambda target: target.name)
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB"), ("TIFF", "RGB"), ("TIFF", "P")],
)
def test_a_profile_is_kept(kind: str, mode: str, target: Target, file: Make) -> None:
    assert kept(convert(file(kind, mode, icc_profile=SRGB), target).data) == SRGB


def test_a_profile_in_several_segments_is_joined_in_their_order(file: Make) -> None:
    first, second = (
        segment(0xE2, b"ICC_PROFILE\x00" + bytes([number, 2]) + part)
        for number, part in ((1, SRGB[:200]), (2, SRGB[200:]))
    )
    assert kept(convert(with_segments(file("JPEG"), second, first), PNG).data) == SRGB


def test_a_profile_of_which_a_part_is_missing_is_damage(file: Make) -> None:
    part = segment(0xE2, b"ICC_PROFILE\x00\x01\x02" + SRGB)
    with pytest.raises(Unconvertible) as refused:
        convert(with_segments(file("JPEG"), part), PNG)
    assert refused.value.reason is Reason.DAMAGED


def test_a_grey_profile_stays_with_grey(file: Make) -> None:
    grey = relabelled(b"GRAY")
    made = convert(file("JPEG", "L", icc_profile=grey), PNG)
    assert (made.mode, kept(made.data)) == ("L", grey)


def test_grey_in_a_colour_profile_becomes_colour_so_that_the_profile_stays_true(file: Make) -> None:
    for kind in ("JPEG", "PNG", "TIFF"):
        made = convert(file(kind, "L", icc_profile=SRGB), PNG)
        assert (made.mode, kept(made.data)) == ("RGB", SRGB), kind


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile_and_leaves_it_behind(kind: str, file: Make) -> None:
    made = convert(file(kind, "CMYK", icc_profile=relabelled(b"CMYK")), PNG)
    assert (made.mode, kept(made.data)) == ("RGB", None)


def test_a_cmyk_profile_is_applied(file: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """No free CMYK profile is small enough to lie here: what the colour engine is asked is looked at instead."""
    asked = []

    def engine(image: Image.Image, own: object, target: object, **options: object) -> Image.Image:
        asked.append((image.mode, options["outputMode"]))
        return image.convert("RGB")

    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda source: source)
    monkeypatch.setattr(ImageCms, "profileToProfile", engine)
    convert(file("JPEG", "CMYK", icc_profile=relabelled(b"CMYK")), PNG)
    assert asked == [("CMYK", "RGB")]


def test_lab_becomes_srgb(file: Make, picture: Image.Image) -> None:
    lab = ImageCms.profileToProfile(
        picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    out = io.BytesIO()
    lab.save(out, "TIFF")
    shown = np.asarray(Image.open(io.BytesIO(convert(out.getvalue(), PNG).data))).astype(int)
    assert abs(shown - np.asarray(picture).astype(int)).mean() < 3


def test_what_is_no_profile_is_dropped(file: Make) -> None:
    for nonsense in (b"x" * 500, SRGB[:-1], b""):
        assert kept(convert(file("JPEG", icc_profile=nonsense), PNG).data) is None


def test_a_profile_bomb_is_dropped_unread(file: Make) -> None:
    bomb = chunk(b"iCCP", b"x\x00\x00" + zlib.compress(bytes(30_000_000)))
    assert kept(convert(with_chunks(file("PNG"), bomb), PNG).data) is None


def test_png_keeps_its_own_colour_description(file: Make) -> None:
    source = with_chunks(file("PNG"), chunk(b"gAMA", (45_455).to_bytes(4, "big")), chunk(b"sRGB", b"\x01"))
    info = Image.open(io.BytesIO(convert(source, PNG).data)).info
    assert (info["gamma"], info["srgb"]) == (0.45455, 1)


@pytest.mark.parametrize("target", [PNG, WEBP], ids=lambda target: target.name)
def test_no_other_metadata_travels(target: Target, file: Make) -> None:
    info = PngInfo()
    info.add_text("Comment", SECRET.decode())
    info.add_itxt("XML:com.adobe.xmp", SECRET.decode())
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00" + SECRET)
    for source in (
        with_segments(file("JPEG", exif=exif(6), comment=SECRET), xmp, segment(0xED, b"Photoshop 3.0\x00" + SECRET)),
        file("PNG", exif=exif(6), pnginfo=info),
        file("WEBP", exif=exif(6), xmp=SECRET),
        file("TIFF", exif=exif(6), description=SECRET.decode()),
        file("JPEG") + SECRET,
    ):
        assert SECRET in source
        made = convert(source, target).data
        assert SECRET not in made
        found = Image.open(io.BytesIO(made))
        assert not dict(found.getexif())
        assert set(found.info) <= {"background", "loop", "timestamp", "duration"}

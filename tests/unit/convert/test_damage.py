"""Damaged, hostile and foreign files are refused with a reason; none of them is half converted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from picture_bytes import blotted, header, png_of, resized_frame
from pictures import DAMAGED, corpus

from fusebus.convert import Format, Reason, Target, Unconvertible, convert

Make = Callable[..., bytes]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_damaged(kind: str, share: float, file: Make) -> None:
    source = file(kind, "P" if kind == "GIF" else "RGB")
    with pytest.raises(Unconvertible) as refused:
        convert(source[: int(len(source) * share)], Target())
    assert refused.value.reason in (Reason.DAMAGED, Reason.NOT_AN_IMAGE)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_zeroed_blocks_of_a_jpeg_are_found(mode: str, file: Make) -> None:
    with pytest.raises(Unconvertible) as refused:
        convert(blotted(file("JPEG", mode, quality=90), 0.6, 500), Target())
    assert refused.value.reason is Reason.DAMAGED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.NOT_AN_IMAGE),
        (b"notes, no picture", Reason.NOT_AN_IMAGE),
        (b"GIF89a" + bytes(3), Reason.NOT_AN_IMAGE),
        (b"II*\x00" + b"\xff" * 30, Reason.NOT_AN_IMAGE),
        (png_of(header(10_001, 10_000), b""), Reason.TOO_MANY_PIXELS),
    ],
)
def test_what_is_no_sound_picture_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(Unconvertible) as refused:
        convert(data, Target())
    assert refused.value.reason in (reason, Reason.DAMAGED)
    assert str(refused.value)


def test_a_header_of_too_many_pixels_is_refused_before_memory_is_taken(file: Make) -> None:
    with pytest.raises(Unconvertible) as refused:
        convert(resized_frame(file("JPEG"), 60_000, 60_000), Target())
    assert refused.value.reason is Reason.TOO_MANY_PIXELS


@pytest.mark.long
@pytest.mark.parametrize("target", [Target(), Target(format=Format.WEBP)], ids=lambda target: target.name)
def test_the_corpus_of_odd_files_is_converted_or_refused_and_never_crashes(target: Target) -> None:
    """The same verdicts as ingest's, but for formats that only conversion reads."""
    for case in corpus():
        try:
            made = convert(case.data, target)
        except Unconvertible as refused:
            deep_webp = target.format is Format.WEBP and refused.reason is Reason.UNSUPPORTED_DEPTH
            assert case.reasons or deep_webp, f"{case.name}: {refused}"
        else:
            first_alone_is_read = case.name.endswith("1500 frames")
            refusals = {*DAMAGED, "too_complex", "too_many_pixels"}
            assert first_alone_is_read or not set(case.reasons) & refusals, case.name
            assert case.size in (None, (made.width, made.height)), case.name

"""Damaged, hostile and foreign files are refused with a reason; none of them is half converted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from picture_bytes import ARITHMETIC_JPEG, blotted, header, png_of, resized_frame
from pictures import DAMAGED, corpus
from unusual import unusual

from fusebus.convert import Format, Reason, Target, Unconvertible, convert
from fusebus.convert.memory import JPEG_TO_PNG_BYTES, needed

Make = Callable[..., bytes]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_damaged(kind: str, share: float, file: Make) -> None:
    source = file(kind, "P" if kind == "GIF" else "RGB")
    with pytest.raises(Unconvertible) as refused:
        convert(source[: int(len(source) * share)], Target())
    assert refused.value.reason in (Reason.DAMAGED, Reason.NOT_AN_IMAGE)


def test_an_arithmetic_jpeg_is_damaged_wherever_it_is_cut() -> None:
    for length in range(2, len(ARITHMETIC_JPEG)):
        with pytest.raises(Unconvertible):
            convert(ARITHMETIC_JPEG[:length], Target())


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


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "BMP", "PNG", "JPEG", "WEBP", "16 bits"])
def test_random_damage_is_refused_or_read_and_never_another_error(kind: str, file: Make) -> None:
    random = np.random.default_rng(11)
    if kind == "16 bits":
        sound = bytes(cv2.imencode(".tif", random.integers(0, 65_536, (20, 30, 3)).astype(np.uint16))[1])
    else:
        options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
        sound = file(kind, "P" if kind == "GIF" else "RGB", **options)
    for _ in range(60):
        spoilt = bytearray(sound)
        for at in random.integers(0, min(len(sound), 400), 3):
            spoilt[at] = random.integers(0, 256)
        needed(bytes(spoilt), Format.PNG)
        with contextlib.suppress(Unconvertible):
            convert(bytes(spoilt), Target())


def test_a_sampling_that_the_decoder_has_no_name_for_is_converted() -> None:
    (case,) = (case for case in unusual() if case.name == "jpeg sampling 441")
    made = convert(case.data, Target())
    assert (made.width, made.height) == case.size
    assert needed(case.data, Format.PNG) == made.width * made.height * JPEG_TO_PNG_BYTES


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", [Target(), Target(format=Format.WEBP)], ids=lambda target: target.name)
def test_the_corpus_of_odd_files_is_converted_or_refused_and_never_crashes(target: Target) -> None:
    """The same verdicts as ingest's, but for formats that only conversion reads."""
    for case in corpus():
        try:
            made = convert(case.data, target)
        except Unconvertible as refused:
            deep_webp = target.format is Format.WEBP and refused.reason is Reason.UNSUPPORTED_DEPTH
            no_profile = "ICC profile" in str(refused)  # ingest needs none, and leaves it behind
            assert case.reasons or deep_webp or no_profile, f"{case.name}: {refused}"
        else:
            assert needed(case.data, target.format) >= made.width * made.height * JPEG_TO_PNG_BYTES, case.name
            assert not set(case.reasons) & {*DAMAGED, "too_complex", "too_many_pixels"}, case.name
            assert case.size in (None, (made.width, made.height)), case.name

"""Damage behind which a decoder falls into step again shows in the means of what follows; sound pictures pass."""

import numpy as np
import pytest
import simplejpeg
from picture_bytes import board, saved

from fusebus.validation.levels import verify_levels
from fusebus.vision import Damaged, ImageError, decode

RAMP = np.tile(np.arange(0, 256, dtype=np.uint8)[None, :, None], (256, 1, 3))


@pytest.mark.parametrize("quality", [1, 10, 50, 90, 97, 100])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_no_sound_picture_is_out_of_range(quality: int, mode: str) -> None:
    checks = ((np.indices((256, 256)).sum(0) // 8 % 2) * 255).astype(np.uint8)[:, :, None].repeat(3, 2)
    for picture in (RAMP, RAMP.transpose(1, 0, 2), checks, RAMP // 255 * 255, board(320, 240)):
        for options in ({}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 3}):
            verify_levels(saved(np.ascontiguousarray(picture), "JPEG", mode, quality=quality, **options))
    for sampling in ("444", "422", "420", "440", "411"):
        verify_levels(simplejpeg.encode_jpeg(RAMP, quality, "RGB", sampling))


def test_of_what_a_decoder_takes_for_sound_behind_noise_nearly_all_is_found() -> None:
    jpeg, random, unseen = saved(board(640, 448, 25), "JPEG", quality=90), np.random.default_rng(3), 0
    for _ in range(200):
        at = int(random.integers(1_000, len(jpeg) - 514))
        try:
            damaged = jpeg[:at] + random.bytes(512) + jpeg[at + 512 :]
            verify_levels(damaged)
            decode(damaged)
        except ImageError:
            continue
        unseen += 1
    assert unseen <= 2


def test_blocks_that_are_off_are_named_whatever_the_decoder_thinks() -> None:
    grey = saved(np.full((64, 64, 3), 128, np.uint8), "JPEG", "L", quality=90)
    at = grey.index(b"\xff\xda") + 10
    with pytest.raises(Damaged, match="beyond black or white"):
        verify_levels(grey[:at] + b"\xfe\xaa\xaa" * 9 + grey[at + 9 :])


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xdb\x00\x03\x00", b"\xff\xd8\xff\xda\x00\x02"])
def test_what_is_no_jpeg_is_left_to_others(data: bytes) -> None:
    verify_levels(data)

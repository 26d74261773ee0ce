"""Before and after the model: pictures in flight have memory of their own, drawn ones leave theirs to the next."""

import hashlib

import numpy as np
import pytest

from fusebus.inferencer import codecs
from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.codecs import Prepared, prepare, render
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL, Damaged, encode_jpeg

NOTHING = Outputs(
    np.zeros(0, np.float32), np.zeros((0, 4), np.float32), np.zeros((0, 8, 8), np.uint8), np.zeros(0, np.int64)
)
MANIFEST = load_manifest(DEMO_MODEL)


@pytest.fixture(autouse=True)
def _no_spare_memory() -> None:
    codecs._spare.clear()


def photo(seed: int, width: int = 320, height: int = 240) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def prepared(data: bytes) -> Prepared:
    return prepare(data, hashlib.sha256(data).hexdigest(), 64)


def test_a_drawn_picture_leaves_its_memory_to_the_next_one() -> None:
    first = prepared(photo(1))
    render(first, NOTHING, MANIFEST, 90)
    second = prepared(photo(2, 300, 200))
    assert second.memory is first.memory
    render(second, NOTHING, MANIFEST, 90)
    assert prepared(photo(3)).memory is first.memory  # the smaller one did not make it smaller


def test_pictures_in_flight_never_share_memory() -> None:
    expected = [prepared(photo(seed)).pixels.copy() for seed in range(4)]
    render(prepared(photo(9)), NOTHING, MANIFEST, 90)
    flying = [prepared(photo(seed)) for seed in range(4)]
    for picture, pixels in zip(flying, expected, strict=True):
        np.testing.assert_array_equal(picture.pixels, pixels)


def test_the_same_picture_gives_the_same_file_in_memory_that_was_used() -> None:
    first = render(prepared(photo(1)), NOTHING, MANIFEST, 90)
    render(prepared(photo(2)), NOTHING, MANIFEST, 90)
    assert render(prepared(photo(1)), NOTHING, MANIFEST, 90).jpeg == first.jpeg


def test_a_damaged_picture_is_refused_and_the_next_one_is_sound() -> None:
    render(prepared(photo(1)), NOTHING, MANIFEST, 90)
    with pytest.raises(Damaged):
        prepared(photo(2)[:-4_000])
    expected = prepared(photo(3)).pixels
    codecs._spare.clear()
    np.testing.assert_array_equal(prepared(photo(3)).pixels, expected)


def test_little_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "_SPARE_BYTES", 320 * 240 * 3 - 1)
    render(prepared(photo(1)), NOTHING, MANIFEST, 90)
    assert not codecs._spare
    monkeypatch.undo()
    for picture in [prepared(photo(seed)) for seed in range(40)]:
        render(picture, NOTHING, MANIFEST, 90)
    assert len(codecs._spare) == codecs._spare.maxlen

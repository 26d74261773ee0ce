"""Before and after the model: pictures in flight have memory of their own, drawn ones leave theirs to the next."""

import hashlib
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.codecs import Prepared, prepare, render
from fusebus.inferencer.spare import Spare
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL, Damaged, encode_jpeg

NOTHING = Outputs(
    np.zeros(0, np.float32), np.zeros((0, 4), np.float32), np.zeros((0, 8, 8), np.uint8), np.zeros(0, np.int64)
)
MANIFEST = load_manifest(DEMO_MODEL)


def photo(seed: int, width: int = 320, height: int = 240) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def prepared(data: bytes, spare: Spare | None = None) -> Prepared:
    return prepare(data, hashlib.sha256(data).hexdigest(), 64, 0, spare)


def test_a_drawn_picture_leaves_its_memory_to_the_next_one() -> None:
    spare = Spare(1, 0)
    first = prepared(photo(1), spare)
    render(first, NOTHING, MANIFEST, 90, spare)
    second = prepared(photo(2, 300, 200), spare)
    assert second.memory is first.memory
    render(second, NOTHING, MANIFEST, 90, spare)
    assert prepared(photo(3), spare).memory is first.memory  # the smaller one did not make it smaller


def turned(data: bytes) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = 6
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "JPEG", quality=90, exif=tags)
    return out.getvalue()


def as_png(data: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "PNG")
    return out.getvalue()


def test_pictures_in_flight_never_share_memory() -> None:
    """Of any kind, prepared and drawn in several threads, some of them refused."""
    kinds = (lambda data: data, turned, as_png, lambda data: data[:-4_000])
    files = [kinds[seed % 4](photo(seed, 320 + seed % 3, 240)) for seed in range(24)]
    expected = [None if seed % 4 == 3 else prepared(data).pixels.copy() for seed, data in enumerate(files)]
    spare = Spare(2, 0)

    def one(seed: int) -> None:
        for _ in range(4):
            if expected[seed] is None:
                with pytest.raises(Damaged):
                    prepared(files[seed], spare)
                continue
            picture = prepared(files[seed], spare)
            time.sleep(0.001)
            np.testing.assert_array_equal(picture.pixels, expected[seed])
            render(picture, NOTHING, MANIFEST, 90, spare)

    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(one, seed) for seed in range(24)]:
            done.result()


def test_the_same_picture_gives_the_same_file_in_memory_that_was_used() -> None:
    spare = Spare(1, 0)
    first = render(prepared(photo(1), spare), NOTHING, MANIFEST, 90, spare)
    render(prepared(photo(2), spare), NOTHING, MANIFEST, 90, spare)
    assert render(prepared(photo(1), spare), NOTHING, MANIFEST, 90, spare).jpeg == first.jpeg


@pytest.mark.parametrize("kind", [turned, as_png])
def test_memory_that_did_not_serve_is_there_for_the_next_one(kind: Callable[[bytes], bytes]) -> None:
    spare = Spare(1, 0)
    memory = prepared(photo(1), spare).memory
    spare.give(memory)
    prepared(kind(photo(2)), spare)
    assert spare.take(memory.size) is memory


def test_spare_memory_is_little_fits_and_is_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spare, pieces = Spare(2, 0), [np.zeros(1_000 + number, np.uint8) for number in range(4)]
    for piece in (*pieces, pieces[3]):
        spare.give(piece)
    assert spare.take(100) is None  # too large for so little
    assert spare.take(2_000) is None
    taken = [spare.take(900) for _ in range(3)]
    assert taken[0] is pieces[2] and taken[1] is pieces[3] and taken[2] is None
    monkeypatch.setattr("fusebus.inferencer.spare.MOST_BYTES", 1_000)
    spare.give(pieces[1])
    assert spare.take(900) is None
    large = Spare(2)
    large.give(pieces[0])
    assert large.take(900) is None

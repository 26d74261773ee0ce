import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from fusebus.vision import Detection, annotate, encode_jpeg, rle
from fusebus.vision.annotate import PALETTE


def detection(x0: float, y0: float, x1: float, y1: float, score: float = 0.93) -> Detection:
    corners = np.array([[x0 + 5, y0 + 5], [x1 - 5, y0 + 5], [x1 - 5, y1 - 5], [x0 + 5, y1 - 5]]).astype(np.int32)
    empty = rle.encode(np.zeros((8, 8), np.bool_))
    return Detection(label="fuse neutral", score=score, box=(x0, y0, x1, y1), mask=empty, polygons=(corners,))


def changed(rgb: np.ndarray, ground: int = 90) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((rgb != ground).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def grey(width: int = 800, height: int = 600) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_only_the_box_its_label_and_their_edges_are_touched() -> None:
    left, top, right, bottom = changed(annotate(grey(), [detection(300, 250, 420, 400)]))
    assert left >= 300 - 6
    assert bottom <= 400 + 6
    assert top >= 250 - 60
    assert right <= 300 + 260


def test_the_mask_is_tinted_and_what_lies_beside_it_in_the_box_is_not() -> None:
    drawn = annotate(grey(), [detection(300, 250, 420, 400)])
    assert drawn[325, 360].tolist() == pytest.approx([90 * 0.72 + value * 0.28 for value in PALETTE[0]], abs=0.5)


def test_the_same_pixels_and_detections_give_the_same_bytes() -> None:
    found = [detection(300, 250, 420, 400), detection(350, 300, 500, 420, 0.5)]
    files = {hashlib.sha256(encode_jpeg(annotate(grey(), found))).hexdigest() for _ in range(3)}
    assert len(files) == 1


def test_it_draws_into_the_picture_it_was_given() -> None:
    rgb = grey()
    assert annotate(rgb, [detection(300, 250, 420, 400)]) is rgb


@pytest.mark.parametrize(("width", "height"), [(800, 600), (40, 30), (16, 2_000), (3, 3), (1, 1)])
@pytest.mark.parametrize(
    "shares", [(0, 0, 1, 1), (0, 0, 0.02, 0.02), (0.97, 0.97, 1, 1), (0.4, 0, 0.6, 1), (0.5, 0.5, 0.5, 0.5)]
)
def test_boxes_at_every_edge_of_every_picture_are_drawn(
    width: int, height: int, shares: tuple[float, float, float, float]
) -> None:
    box = [share * edge for share, edge in zip(shares, (width, height, width, height), strict=True)]
    annotate(grey(width, height), [detection(*box), detection(*box, score=0.4)])


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    both = annotate(grey(), [detection(300, 250, 420, 400, 0.9), detection(330, 250, 450, 400, 0.8)])
    for colour in PALETTE[:2]:
        ground = (both == np.array(colour)).all(axis=2)
        alone = annotate(grey(), [detection(300, 250, 420, 400, 0.9)])
        label = (alone == np.array(PALETTE[0])).all(axis=2).sum()
        assert ground.sum() > 0.6 * label


def test_a_picture_without_detections_stays_as_it_is() -> None:
    assert (annotate(grey(), []) == 90).all()


def test_jpegs_carry_no_metadata() -> None:
    data = encode_jpeg(grey())
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, dict(image.getexif())) == ("JPEG", (800, 600), {})
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}

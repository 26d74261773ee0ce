"""The board generator: same seed, same scene; truth that fits the picture."""

import numpy as np
import pytest

from fusebus.vision.board_painter import new_stage
from fusebus.vision.board_photography import look
from fusebus.vision.boards import KINDS, draw_board, paint, photo_size

SMALL = (320, 240)


def test_a_seed_always_gives_the_same_board() -> None:
    first, second = draw_board(7, SMALL), draw_board(7, SMALL)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.masks, second.masks)


def test_different_seeds_give_different_boards() -> None:
    assert (draw_board(1, SMALL).image != draw_board(2, SMALL).image).mean() > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_scene_is_the_same_at_every_size(seed: int) -> None:
    small, large = draw_board(seed, SMALL), draw_board(seed, (800, 600))
    assert len(small.boxes) == len(large.boxes)
    np.testing.assert_allclose(small.boxes / 320, large.boxes / 800, atol=0.012)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (333, 201)])
def test_image_boxes_and_masks_have_the_promised_shapes(size: tuple[int, int]) -> None:
    board = draw_board(3, size, neutrals=3)
    assert board.image.shape == (size[1], size[0], 3)
    assert board.image.dtype == np.uint8
    assert board.boxes.shape == (len(board.masks), 4)
    assert board.masks.shape[1:] == (size[1], size[0])


@pytest.mark.parametrize("neutrals", range(5))
def test_as_many_neutrals_as_asked_for_are_drawn(neutrals: int) -> None:
    counts = [len(draw_board(seed, SMALL, neutrals).boxes) for seed in range(6)]
    assert max(counts) == neutrals  # one may be outside the photo
    assert sum(counts) >= 0.8 * neutrals * len(counts)


@pytest.mark.parametrize("seed", range(8))
def test_every_box_is_the_hull_of_its_mask_and_no_pixel_is_in_two_masks(seed: int) -> None:
    board = draw_board(seed, SMALL)
    for box, mask in zip(board.boxes, board.masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert board.masks.sum(0).max(initial=0) <= 1


def test_a_board_can_be_without_neutrals() -> None:
    board = draw_board(5, SMALL, neutrals=0)
    assert board.boxes.shape == (0, 4)
    assert board.masks.shape == (0, 240, 320)


@pytest.mark.parametrize(("size", "neutrals"), [((31, 240), None), ((320, 0), None), (SMALL, -1), (SMALL, 5)])
def test_a_size_or_number_out_of_range_is_refused(size: tuple[int, int], neutrals: int | None) -> None:
    with pytest.raises(ValueError, match="a board"):
        draw_board(0, size, neutrals)


def test_a_neutral_is_plainly_in_the_photo_or_plainly_not() -> None:
    for seed in range(40):
        random = np.random.default_rng(seed)
        stage = new_stage(random, 750, 0.2)
        paint(stage, 1 + seed % 4)
        _, shares = look(stage, random)
        assert len(shares) == 1 + seed % 4
        assert not any(0.1 < share < 0.55 for share in shares)


def test_nothing_is_counted_that_only_looks_like_a_neutral() -> None:
    assert all(len(draw_board(seed, SMALL, neutrals=0).boxes) == 0 for seed in range(40))


def test_every_pixel_of_a_neutral_is_of_its_kind_and_look_alikes_are_of_others() -> None:
    boards = [draw_board(seed, SMALL) for seed in range(30)]
    for board in boards:
        assert (board.kinds[board.masks.any(0)] == 1).all()
    assert set(np.unique([board.kinds for board in boards])) == set(range(KINDS))


def test_photographs_have_1_to_12_megapixels_and_several_shapes() -> None:
    sizes = [photo_size(seed) for seed in range(200)]
    assert all(0.99e6 < width * height < 12.01e6 for width, height in sizes)
    assert max(width * height for width, height in sizes) > 8e6
    assert {round(width / height, 2) for width, height in sizes} == {1.33, 1.5, 1.78, 0.75}


def test_boards_differ_in_light_and_sharpness() -> None:
    boards = [draw_board(seed, SMALL).image.astype(float) for seed in range(30)]
    brightness = [board.mean() for board in boards]
    detail = [np.abs(np.diff(board.mean(2), axis=1)).mean() / board.mean() for board in boards]
    assert max(brightness) > 1.8 * min(brightness)
    assert max(detail) > 2 * min(detail)


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 2])
def test_what_is_painted_turned_is_turned_about_its_pivot(angle: float) -> None:
    canvas = new_stage(np.random.default_rng(0), 100, 1).canvas
    with canvas.turned(300, 200, angle):
        canvas.block(280, 190, 40, 20, 0, (200, 200, 200), owner=1, lift=0)
        corners = canvas.placed([(280, 190), (320, 210)])
    rows, columns = np.nonzero(canvas.owner == 1)
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], [300, 200], atol=1)
    assert len(rows) == pytest.approx(800, rel=0.16)
    np.testing.assert_allclose(corners.mean(0), [300, 200])

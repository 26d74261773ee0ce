"""The board generator: same seed, same scene; truth that fits the picture."""

import numpy as np
import pytest

from fusebus.vision.boards import draw_board

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

"""The training: matching, loss, that a few steps learn, and that an interruption changes nothing. Needs torch."""

import importlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fusebus.vision.boards import KINDS
from fusebus.vision.export.augment import varied
from fusebus.vision.export.dataset import make_boards
from fusebus.vision.export.demo_model import grid_anchors, new_model
from fusebus.vision.export.errors import HelperEnded
from fusebus.vision.export.loss import Truth, match_by_cost, match_by_grid
from fusebus.vision.export.sam3 import TINY_PROMPT_TOKENS, Sam3Detector, load_model
from fusebus.vision.export.training import Finish, Start, TrainingPlan, batch_numbers, train
from fusebus.vision.export.training_state import STATE, StateError

pytestmark = pytest.mark.timeout(600)  # each process takes up to 15 s to import torch and transformers

SIZE = 112  # pixels: half of what the demo model begins with, for speed
PLAN = TrainingPlan(steps=8, batch=4, mask_rows=2, processes=1, warm_up_steps=2, checkpoint_seconds=0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small operations lose more by waiting for another thread than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


boards = partial(make_boards, range(1_000_000, 1_000_006), SIZE, SIZE // 14 * 4)  # what another process can import
FINISH_SIZE = 140
finish_boards = partial(make_boards, range(1_000_006, 1_000_010), FINISH_SIZE, FINISH_SIZE // 14 * 4)


@pytest.fixture
def start() -> Start:
    return Start(partial(new_model, SIZE), boards, TINY_PROMPT_TOKENS, grid_anchors())


def truth_of(*boxes: tuple[float, float, float, float]) -> Truth:
    return Truth(torch.tensor([boxes]), torch.zeros(1, len(boxes), 64, 64), [len(boxes)])


def interrupted_at(step: int) -> Callable[[Path, int], None]:
    """What an eviction does, at the given step."""

    def kept(path: Path, at: int) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return kept


def test_queries_start_on_a_grid_of_boxes() -> None:
    detector = Sam3Detector(new_model(SIZE), TINY_PROMPT_TOKENS).eval()
    with torch.no_grad():
        boxes = detector(torch.zeros(1, 3, SIZE, SIZE), detector.text_features()).boxes[-1, 0]
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, grid_anchors(), atol=1e-3, rtol=0)


def test_instances_get_the_nearest_free_query_of_the_grid() -> None:
    matches = match_by_grid(grid_anchors(), truth_of((0.0, 0.0, 0.16, 0.16), (0.0, 0.0, 0.18, 0.18)))
    assert sorted(matches.query.tolist())[0] == 0
    assert len(set(matches.query.tolist())) == 2
    assert matches.instance.tolist() == [1, 0] or matches.instance.tolist() == [0, 1]


def test_hungarian_matching_prefers_the_query_whose_box_fits() -> None:
    boxes = torch.tensor([[[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.9, 0.9], [0.0, 0.0, 1.0, 1.0]]])
    matches = match_by_cost(torch.zeros(1, 3), boxes, truth_of((0.6, 0.6, 0.88, 0.9), (0.1, 0.12, 0.3, 0.3)))
    assert dict(zip(matches.query.tolist(), matches.instance.tolist(), strict=True)) == {0: 1, 1: 0}


def test_every_picture_is_seen_once_before_any_is_seen_again() -> None:
    seen = np.concatenate([batch_numbers(step, 4, 10, seed=3) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_a_short_training_learns_and_leaves_a_checkpoint_that_loads(start: Start, tmp_path: Path) -> None:
    told: list[str] = []
    plan = TrainingPlan(steps=100, batch=2, mask_rows=2, processes=1, warm_up_steps=20, vary=False)
    assert train(plan, start, tmp_path, told.append)
    losses = [float(loss) for line in told for loss in re.findall(r"loss ([\d.]+)", line)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert load_model(tmp_path).config.detr_decoder_config.num_queries == 36


def test_the_backbone_learns_alone_what_cells_show_and_the_rest_begins_then(start: Start, tmp_path: Path) -> None:
    told: list[str] = []
    plan = TrainingPlan(steps=100, batch=2, mask_rows=2, processes=1, warm_up_steps=10, kinds_share=0.5, vary=False)
    assert train(plan, replace(start, kinds=KINDS), tmp_path, told.append)
    alone, together = (re.findall(r"(\w+) [\d.]+(?= |$)", line.split(": ")[1]) for line in told)
    assert alone == ["kinds"]
    assert together == ["score", "l1", "giou", "presence", "mask", "semantic", "kinds"]
    load_model(tmp_path)
    assert not any("kinds" in name for name in load_file(tmp_path / "model.safetensors"))


def test_kinds_of_cells_follow_crop_and_mirror() -> None:
    examples = make_boards(range(1_000_000, 1_000_002), SIZE, SIZE // 14 * 4)
    for row, count in enumerate(examples.counts):
        for seed in range(4):
            _, _, masks, kinds = varied(
                examples.images[row],
                examples.boxes[row, :count],
                examples.masks[row, :count],
                examples.kinds[row],
                np.random.default_rng(seed),
            )
            sure = (masks > 250).any(0)
            assert (kinds[sure] == 1).mean() > 0.9


@pytest.mark.parametrize(("processes", "at"), [(1, 1), (1, 3), (2, 1), (2, 5)])
def test_an_interrupted_and_resumed_training_ends_with_the_very_bits_of_one_that_ran_through(
    start: Start, tmp_path: Path, processes: int, at: int
) -> None:
    """Before the finish at another image size, when it begins, and within it."""
    plan = TrainingPlan(steps=7, batch=2, mask_rows=2, processes=processes, warm_up_steps=2, checkpoint_seconds=0)
    plan = replace(plan, kinds_share=0.3, finish_steps=3)
    start = replace(start, kinds=KINDS, finish=Finish(partial(new_model, FINISH_SIZE), finish_boards))
    assert train(plan, start, tmp_path / "through", lambda line: None)
    assert not train(plan, start, tmp_path / "parts", lambda line: None, interrupted_at(at))
    assert torch.load(tmp_path / "parts" / STATE, weights_only=True)["step"] == at + 1  # after the step in hand
    assert train(plan, start, tmp_path / "parts", lambda line: None)
    through, parts = (torch.load(tmp_path / name / STATE, weights_only=True) for name in ("through", "parts"))
    assert through["step"] == parts["step"] == 7
    for which in ("model", "averaged"):
        assert all(torch.equal(value, parts[which][name]) for name, value in through[which].items())
    assert load_model(tmp_path / "parts").config.vision_config.backbone_config.image_size == FINISH_SIZE
    for number, moments in through["optimizer"]["state"].items():
        assert all(torch.equal(value, parts["optimizer"]["state"][number][name]) for name, value in moments.items())


def test_a_training_whose_other_process_ends_before_its_time_says_so(start: Start, tmp_path: Path) -> None:
    plan = TrainingPlan(steps=1, batch=2, mask_rows=1, processes=2)
    with pytest.raises(HelperEnded, match="ended with 1; what it said"):
        train(plan, replace(start, model=_UnknownElsewhere()), tmp_path, lambda line: None)


class _UnknownElsewhere:
    """A model that can be sent, but not received: as a function of a script that others can't import."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return importlib.import_module, ("no_such_module",)

    def __call__(self) -> Any:
        return new_model(SIZE)


def test_sigterm_is_answered_by_the_caller_again_once_the_training_has_ended(start: Start, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(TrainingPlan(steps=1, batch=2, mask_rows=1, processes=1), start, tmp_path, lambda line: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_state_is_not_continued_under_another_plan(start: Start, tmp_path: Path) -> None:
    train(PLAN, start, tmp_path, lambda line: None, interrupted_at(1))
    other = TrainingPlan(steps=9, batch=4, mask_rows=2, processes=1, warm_up_steps=2, checkpoint_seconds=0)
    with pytest.raises(StateError, match=r"steps 8 became 9.*use another folder"):
        train(other, start, tmp_path, lambda line: None)


def test_a_state_is_not_continued_with_another_finish(start: Start, tmp_path: Path) -> None:
    plan = replace(PLAN, finish_steps=2)
    with_finish = replace(start, finish=Finish(partial(new_model, FINISH_SIZE), finish_boards))
    train(plan, with_finish, tmp_path, lambda line: None, interrupted_at(1))
    with pytest.raises(StateError, match=r"pictures \[\[6, 112\], \[4, 140\]\] became \[\[6, 112\]\]"):
        train(plan, start, tmp_path, lambda line: None)

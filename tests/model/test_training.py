"""The training: matching, loss, and that a few steps learn. Needs torch."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from fusebus.vision.export.loss import Truth, match_by_cost, match_by_grid
from fusebus.vision.export.sam3 import TINY_PROMPT_TOKENS, Sam3Detector, load_model
from fusebus.vision.export.training import TrainingPlan, grid_anchors, new_model, train


def truth_of(*boxes: tuple[float, float, float, float]) -> Truth:
    return Truth(torch.tensor([boxes]), torch.zeros(1, len(boxes), 64, 64), [len(boxes)])


def test_queries_start_on_a_grid_of_boxes() -> None:
    model = new_model(224)
    detector = Sam3Detector(model, TINY_PROMPT_TOKENS).eval()
    with torch.no_grad():
        boxes = detector(torch.zeros(1, 3, 224, 224), detector.text_features()).boxes[-1, 0]
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


def test_a_short_training_learns_and_leaves_a_checkpoint_that_loads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(TrainingPlan(steps=100, boards=4, batch=4, mask_rows=4), tmp_path, False, partial(print, flush=True))
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", capfd.readouterr().out)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert json.loads((tmp_path / "training.json").read_text())["steps_done"] == 100
    assert load_model(tmp_path).config.detr_decoder_config.num_queries == 36

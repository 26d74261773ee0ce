"""The committed demo model, run as the inferencer runs it, on boards that nobody trained or tuned it on."""

import numpy as np
import pytest

from fusebus.models.manifest import load_manifest
from fusebus.vision import DEMO_MODEL
from fusebus.vision.export.evaluate import Model, board_samples, figures, judge

UNSEEN = range(200_000, 200_040)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(DEMO_MODEL)


def test_the_committed_model_finds_and_counts_the_neutrals_of_unseen_boards(model: Model) -> None:
    judged = [judge(model, sample, {1: 0}) for sample in board_samples(UNSEEN, 0.3)]
    measured = figures(judged, model.manifest.score_thresholds)
    assert measured.instances > 40
    assert measured.ap50 >= 0.95
    assert measured.count_accuracy >= 0.85


def test_the_committed_model_is_small_and_is_the_one_its_manifest_describes() -> None:
    manifest = load_manifest(DEMO_MODEL)
    assert manifest.total_bytes <= 5_000_000
    assert manifest.prompts == ("fuse neutral",)
    assert manifest.measured is not None
    assert manifest.measured["pictures"] >= 500


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_picture_gives_the_same_detections_in_every_batch(model: Model, batch: int) -> None:
    manifest = model.manifest
    pictures = np.random.default_rng(0).integers(0, 256, (batch, manifest.image_size, manifest.image_size, 3), np.uint8)
    outputs = model.run(pictures)
    masks = (batch, manifest.top_k, manifest.mask_size, manifest.mask_size)
    assert (outputs["scores"].shape, outputs["scores"].dtype) == ((batch, manifest.top_k), np.float32)
    assert (outputs["boxes"].shape, outputs["boxes"].dtype) == ((batch, manifest.top_k, 4), np.float32)
    assert (outputs["masks"].shape, outputs["masks"].dtype) == (masks, np.uint8)
    assert (outputs["classes"].shape, outputs["classes"].dtype) == ((batch, manifest.top_k), np.int64)
    np.testing.assert_allclose(outputs["scores"][-1], model.run(pictures[-1:])["scores"][0], atol=1e-3)

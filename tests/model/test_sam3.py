"""Our forward pass against transformers' own model. Needs torch."""

from types import SimpleNamespace

import pytest
import torch
from sam3_samples import NEUTRAL, random_model, small_config

from fusebus.vision.export.sam3 import Sam3Detector, ServingGraph


@pytest.fixture
def detector() -> Sam3Detector:
    return Sam3Detector(random_model(small_config()), NEUTRAL).eval()


def test_the_forward_pass_is_transformers_own_with_the_geometry_token_in_the_prompt(detector: Sam3Detector) -> None:
    pixels = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        text = detector.text_features()
        vision = detector.model.vision_encoder(pixels)
        token = detector._geometry_token(vision.fpn_hidden_states[2], vision.fpn_position_encoding[2])
        prompt = SimpleNamespace(pooler_output=torch.cat([text.expand(2, -1, -1), token], dim=1))
        theirs = detector.model(pixel_values=pixels, text_embeds=prompt)
        ours = detector(pixels, text)
    torch.testing.assert_close(ours.logits[-1], theirs.pred_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.boxes[-1], theirs.pred_boxes, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.presence[-1], theirs.presence_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.semantic, theirs.semantic_seg, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(detector.masks(ours.queries, ours.pixels), theirs.pred_masks, atol=1e-4, rtol=1e-4)


def test_the_geometry_token_depends_on_the_picture_and_changes_the_result(detector: Sam3Detector) -> None:
    pixels = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        vision = detector.model.vision_encoder(pixels)
        token = detector._geometry_token(vision.fpn_hidden_states[2], vision.fpn_position_encoding[2])
        text = detector.text_features()
        without = detector.model(pixel_values=pixels, text_embeds=SimpleNamespace(pooler_output=text.expand(2, -1, -1)))
        with_token = detector(pixels, text)
    assert (token[0] - token[1]).abs().max() > 1e-3
    assert (with_token.logits[-1] - without.pred_logits).abs().max() > 1e-3


def test_masks_of_a_part_of_the_batch_are_those_of_the_whole(detector: Sam3Detector) -> None:
    pixels = torch.rand(3, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        whole, part = (detector(pixels, detector.text_features(), mask_rows=rows) for rows in (None, 2))
    torch.testing.assert_close(part.pixels, whole.pixels[:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(part.logits, whole.logits, atol=1e-5, rtol=1e-5)


def test_a_serving_graph_gives_no_more_detections_than_there_are_queries(detector: Sam3Detector) -> None:
    with pytest.raises(ValueError, match="top-k 17: the model has 8 queries for each of 2 prompts"):
        ServingGraph(detector, 17, [NEUTRAL, NEUTRAL])

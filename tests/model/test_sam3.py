"""Our forward pass and serving graph against transformers' own model and against ONNX Runtime. Needs torch."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fusebus.vision.export.evaluate import open_session, run_onnx
from fusebus.vision.export.onnx_export import run_torch, write_onnx
from fusebus.vision.export.sam3 import TINY_PROMPT_TOKENS, Sam3Detector, ServingGraph
from fusebus.vision.export.training import new_model


@pytest.fixture
def detector() -> Sam3Detector:
    torch.manual_seed(3)
    detector = Sam3Detector(new_model(224), TINY_PROMPT_TOKENS).eval()
    with torch.no_grad():  # boxes that differ from their anchors, as in a trained model
        detector.model.detr_decoder.box_head.layer3.weight.normal_(0, 0.1)
    return detector


def test_the_forward_pass_is_transformers_own_with_the_geometry_token_in_the_prompt(detector: Sam3Detector) -> None:
    pixels = torch.rand(2, 3, 224, 224) * 2 - 1
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
    pixels = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        vision = detector.model.vision_encoder(pixels)
        token = detector._geometry_token(vision.fpn_hidden_states[2], vision.fpn_position_encoding[2])
        text = detector.text_features()
        without = detector.model(pixel_values=pixels, text_embeds=SimpleNamespace(pooler_output=text.expand(2, -1, -1)))
        with_token = detector(pixels, text)
    assert (token[0] - token[1]).abs().max() > 1e-3
    assert (with_token.logits[-1] - without.pred_logits).abs().max() > 1e-3


def test_masks_of_a_part_of_the_batch_are_those_of_the_whole(detector: Sam3Detector) -> None:
    pixels = torch.rand(3, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        whole, part = (detector(pixels, detector.text_features(), mask_rows=rows) for rows in (None, 2))
    torch.testing.assert_close(part.pixels, whole.pixels[:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(part.logits, whole.logits, atol=1e-5, rtol=1e-5)


def test_the_exported_graph_computes_what_torch_computes_at_every_batch_size(
    detector: Sam3Detector, tmp_path: Path
) -> None:
    graph = ServingGraph(detector, top_k=8).eval()
    write_onnx(graph, tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx")
    for batch in (1, 2, 4):
        images = np.random.default_rng(batch).integers(0, 256, (batch, 224, 224, 3), np.uint8)
        scores, boxes, masks = run_torch(graph, images)
        onnx_scores, onnx_boxes, onnx_masks = run_onnx(session, images)
        np.testing.assert_allclose(onnx_scores, scores, atol=1e-5)
        np.testing.assert_allclose(onnx_boxes, boxes, atol=1e-5)
        assert np.abs(onnx_masks.astype(int) - masks.astype(int)).max() <= 1

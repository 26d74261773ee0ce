"""Our detector against facebookresearch/sam3's own code, where it is at hand: `scripts/compare-with-native-sam3`
fetches it (its licence is not ours, so that it is no dependency) and runs this. Skipped otherwise."""

import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from sam3_samples import NEUTRAL, small_config
from torch import Tensor, nn

from fusebus.vision.export.native import translate
from fusebus.vision.export.sam3 import Sam3Detector, Sam3Model

NATIVE = os.environ.get("NATIVE_SAM3")  # a folder with the packages
pytestmark = pytest.mark.skipif(not NATIVE, reason="run scripts/compare-with-native-sam3")

LAYERS, QUERIES, WIDTH = 2, 8, 32  # those of small_config


@pytest.fixture(scope="module")
def code() -> Iterator[ModuleType]:
    """The native model builder, with what only its video parts and CUDA need put aside."""
    assert NATIVE is not None
    sys.path.append(NATIVE)
    for name in ("nms", "qnms"):  # torchvision's compiled operators don't load beside a CPU build of torch
        torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float iou) -> Tensor")
    torchvision = pytest.importorskip("torchvision")
    torchvision.ops.roi_align = lambda features, boxes, size: features.new_zeros(0, features.shape[1], size, size)
    absent = {
        name: MagicMock() for name in ("triton", "triton.language", "decord", "psutil") if name not in sys.modules
    }
    sys.modules.update(absent)
    pin = torch.Tensor.pin_memory
    torch.Tensor.pin_memory = lambda tensor, *unused: tensor
    builder = pytest.importorskip("sam3.model_builder")
    decoder = pytest.importorskip("sam3.model.decoder").TransformerDecoder
    coordinates = decoder._get_coords
    decoder._get_coords = staticmethod(lambda height, width, device: coordinates(height, width, "cpu"))
    yield builder
    torch.Tensor.pin_memory = pin


def native_model(code: ModuleType) -> nn.Module:
    """The native image model with the parts and switches of its own builder, at the width of small_config."""
    from sam3.model.text_encoder_ve import VETextEncoder

    def attention(**more: Any) -> nn.Module:
        return code.MultiheadAttention(num_heads=4, dropout=0.1, embed_dim=WIDTH, **more)

    def encoder_layer(batch_first: bool, **more: Any) -> nn.Module:
        return code.TransformerEncoderLayer(
            activation="relu",
            d_model=WIDTH,
            dim_feedforward=64,
            dropout=0.1,
            pos_enc_at_cross_attn_queries=False,
            pre_norm=True,
            self_attention=attention(batch_first=batch_first),
            cross_attention=attention(batch_first=batch_first),
            **more,
        )

    def positions() -> nn.Module:
        return code.PositionEmbeddingSine(num_pos_feats=WIDTH, normalize=True, scale=None, temperature=10000)

    trunk = code.ViT(
        img_size=112,
        pretrain_img_size=56,
        patch_size=14,
        embed_dim=64,
        depth=LAYERS,
        num_heads=4,
        mlp_ratio=1.5,
        norm_layer="LayerNorm",
        drop_path_rate=0.1,
        qkv_bias=True,
        use_abs_pos=True,
        tile_abs_pos=True,
        global_att_blocks=(LAYERS - 1,),
        rel_pos_blocks=(),
        use_rope=True,
        use_interp_rope=True,
        window_size=4,
        pretrain_use_cls_token=True,
        retain_cls_token=False,
        ln_pre=True,
        ln_post=False,
        return_interm_layers=False,
        bias_patch_embed=False,
    )
    neck = code.Sam3DualViTDetNeck(
        position_encoding=positions(), d_model=WIDTH, scale_factors=[4.0, 2.0, 1.0, 0.5], trunk=trunk
    )
    text = VETextEncoder(tokenizer=MagicMock(), d_model=WIDTH, width=WIDTH, heads=4, layers=LAYERS)
    text.encoder.text_projection = nn.Parameter(torch.randn(WIDTH, 24))
    encoder = code.TransformerEncoderFusion(
        layer=encoder_layer(True, pos_enc_at_attn=True, pos_enc_at_cross_attn_keys=False),
        num_layers=LAYERS,
        d_model=WIDTH,
        num_feature_levels=1,
        frozen=False,
        use_act_checkpoint=True,
        add_pooled_text_to_img_feat=False,
        pool_text_with_mask=True,
    )
    decoder = code.TransformerDecoder(
        layer=code.TransformerDecoderLayer(
            activation="relu",
            d_model=WIDTH,
            dim_feedforward=64,
            dropout=0.1,
            cross_attention=attention(),
            n_heads=4,
            use_text_cross_attention=True,
        ),
        num_layers=LAYERS,
        num_queries=QUERIES,
        return_intermediate=True,
        box_refine=True,
        num_o2m_queries=0,
        dac=True,
        boxRPB="log",
        d_model=WIDTH,
        frozen=False,
        interaction_layer=None,
        dac_use_selfatt_ln=True,
        resolution=112,
        stride=14,
        use_act_checkpoint=True,
        presence_token=True,
    )
    geometry = code.SequenceGeometryEncoder(
        pos_enc=positions(),
        encode_boxes_as_points=False,
        points_direct_project=True,
        points_pool=True,
        points_pos_enc=True,
        boxes_direct_project=True,
        boxes_pool=True,
        boxes_pos_enc=True,
        d_model=WIDTH,
        num_layers=LAYERS,
        layer=encoder_layer(False, pos_enc_at_attn=False, pos_enc_at_cross_attn_keys=True),
        use_act_ckpt=True,
        add_cls=True,
        add_post_encode_proj=True,
    )
    masks = code.UniversalSegmentationHead(
        hidden_dim=WIDTH,
        upsampling_stages=3,
        aux_masks=False,
        presence_head=False,
        dot_product_scorer=None,
        act_ckpt=True,
        cross_attend_prompt=code.MultiheadAttention(num_heads=4, dropout=0, embed_dim=WIDTH),
        pixel_decoder=code.PixelDecoder(num_upsampling_stages=3, interpolation_mode="nearest", hidden_dim=WIDTH),
    )
    scoring = code.DotProductScoring(
        d_model=WIDTH,
        d_proj=WIDTH,
        prompt_mlp=code.MLP(
            input_dim=WIDTH,
            hidden_dim=64,
            output_dim=WIDTH,
            num_layers=2,
            dropout=0.1,
            residual=True,
            out_norm=nn.LayerNorm(WIDTH),
        ),
    )
    return code.Sam3Image(
        backbone=code.SAM3VLBackbone(visual=neck, text=text, scalp=1),
        transformer=code.TransformerWrapper(encoder=encoder, decoder=decoder, d_model=WIDTH),
        input_geometry_encoder=geometry,
        segmentation_head=masks,
        num_feature_levels=1,
        o2m_mask_predict=True,
        dot_prod_scoring=scoring,
        use_instance_query=False,
        multimask_output=True,
    ).eval()


def native_outputs(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """What the native model finds for "fuse neutral", its text padded to 32 places as its own tokenizer does."""
    tokens = torch.zeros(1, 32, dtype=torch.long)
    tokens[0, :4] = torch.tensor(NEUTRAL)
    model.backbone.language_backbone.tokenizer = lambda text, context_length: tokens
    found = {"img_batch_all_stages": pixels, **model.backbone.forward_image(pixels)}
    found.update(model.backbone.forward_text(["fuse neutral"], device="cpu"))
    wanted = MagicMock(img_ids=torch.arange(len(pixels)), text_ids=torch.zeros(len(pixels), dtype=torch.long))
    return model.forward_grounding(
        backbone_out=found,
        find_input=wanted,
        find_target=None,
        geometric_prompt=model._get_dummy_prompt(len(pixels)),
    )


def test_our_detector_computes_what_the_native_code_computes(code: ModuleType) -> None:
    torch.manual_seed(0)
    native = native_model(code)
    with torch.no_grad():
        for parameter in native.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    found = translate(native.state_dict())
    assert not found.unknown
    ours = Sam3Model.from_pretrained(None, config=small_config(LAYERS, QUERIES), state_dict=found.state).eval()
    missing, unexpected = ours.load_state_dict(found.state, strict=False)
    assert not missing
    assert not unexpected
    pixels = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        theirs = native_outputs(native, pixels)
        detector = Sam3Detector(ours, NEUTRAL).eval()
        mine = detector(pixels, detector.text_features())
        masks = detector.masks(mine.queries, mine.pixels)
    for name, one, other in (
        ("logits", mine.logits[-1], theirs["pred_logits"].squeeze(-1)),
        ("boxes", mine.boxes[-1], theirs["pred_boxes_xyxy"]),
        ("presence", mine.presence[-1], theirs["presence_logit_dec"]),
        ("masks", masks, theirs["pred_masks"]),
        ("semantic", mine.semantic, theirs["semantic_seg"]),
    ):
        difference = float((one - other.reshape(one.shape)).abs().max())
        print(f"{name}: differ by {difference:.1e} of {float(other.abs().max()):.3f}")
        assert difference <= 1e-5 * max(1.0, float(other.abs().max())), name

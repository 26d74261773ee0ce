"""Owns the translation of facebookresearch/sam3's weights into transformers' names and shapes.

Renamed key by key; in three parts where transformers keeps query, key and value apart; without the class token's row in
the position embedding (the native backbone never uses it); with CLIP's text projection transposed. What follows from
the configuration (rotary frequencies) or belongs to prompts by points is left out, nothing else.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

MARK = "backbone.vision_backbone.trunk."
"""Keys that begin so make a checkpoint a native one."""
MASK_HEAD = "segmentation_head."
VISION_LAYER_NORM_EPS = 1e-5
"""The native backbone's, in its code; transformers' configuration has 1e-6 by default, which changes the results."""

# Per part of the model: native prefix, ours, and what is replaced inside the key, in this order.
_VISION = (
    ("trunk.pos_embed", "backbone.embeddings.position_embeddings"),
    ("trunk.patch_embed.proj.", "backbone.embeddings.patch_embeddings.projection."),
    ("trunk.ln_pre.", "backbone.layer_norm."),
    ("trunk.blocks.", "backbone.layers."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".attn.proj.", ".attention.o_proj."),
    (".attn.qkv.", ".attention.qkv."),
    ("convs.", "neck.fpn_layers."),
    (".dconv_2x2_0.", ".scale_layers.0."),
    (".dconv_2x2_1.", ".scale_layers.2."),
    (".dconv_2x2.", ".scale_layers.0."),
    (".conv_1x1.", ".proj1."),
    (".conv_3x3.", ".proj2."),
)
_TEXT = (
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    (".attn.", ".self_attn."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".c_fc.", ".fc1."),
    (".c_proj.", ".fc2."),
)
_LAYER = (
    (".cross_attn_image.", ".cross_attn."),
    (".linear1.", ".mlp.fc1."),
    (".linear2.", ".mlp.fc2."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    (".norm3.", ".layer_norm3."),
    (".out_proj.", ".o_proj."),
)
_GEOMETRY = (
    ("encode.", "layers."),
    ("img_pre_norm.", "vision_layer_norm."),
    ("encode_norm.", "output_layer_norm."),
    ("norm.", "prompt_layer_norm."),
)
_DECODER = (
    (".cross_attn.", ".vision_cross_attn."),
    (".norm1.", ".vision_cross_attn_layer_norm."),
    (".ca_text.", ".text_cross_attn."),
    (".catext_norm.", ".text_cross_attn_layer_norm."),
    (".norm2.", ".self_attn_layer_norm."),
    (".norm3.", ".mlp_layer_norm."),
    (".linear1.", ".mlp.fc1."),
    (".linear2.", ".mlp.fc2."),
    (".out_proj.", ".o_proj."),
    ("presence_token_out_norm.", "presence_layer_norm."),
    ("presence_token_head.", "presence_head."),
    ("bbox_embed.", "box_head."),
    ("boxRPB_embed_", "box_rpb_embed_"),
    ("norm.", "output_layer_norm."),
)
_MASKS = (
    ("mask_predictor.mask_embed.", "mask_embedder."),
    ("instance_seg_head.", "instance_projection."),
    ("semantic_seg_head.", "semantic_projection."),
    ("cross_attend_prompt.", "prompt_cross_attn."),
    ("cross_attn_norm.", "prompt_cross_attn_norm."),
    (".out_proj.", ".o_proj."),
)
_SCORING = (
    ("prompt_mlp.out_norm.", "text_mlp_out_norm."),
    ("prompt_mlp.", "text_mlp."),
    ("prompt_proj.", "text_proj."),
)
_PARTS = (
    ("backbone.vision_backbone.", "vision_encoder.", _VISION),
    ("backbone.language_backbone.resizer.", "text_projection.", ()),
    ("backbone.language_backbone.encoder.", "text_encoder.", _TEXT),
    ("geometry_encoder.", "geometry_encoder.", (*_GEOMETRY, *_LAYER)),
    ("transformer.encoder.", "detr_encoder.", _LAYER),
    ("transformer.decoder.", "detr_decoder.", _DECODER),
    ("segmentation_head.", "mask_decoder.", _MASKS),
    ("dot_prod_scoring.", "dot_product_scoring.", (*_SCORING, ("hs_proj.", "query_proj."))),
)
_HEADS = re.compile(r"(box_head|presence_head|ref_point_head|box_rpb_embed_[xy]|text_mlp)\.layers\.(\d+)\.")
_DROPPED = re.compile(
    r"backbone\.vision_backbone\.trunk\.blocks\.\d+\.attn\.freqs_cis"  # computed from the configuration
    r"|geometry_encoder\.points_\w+\.(weight|bias)"  # prompts by points: transformers has none
)
_TRACKER = ("inst_interactive_predictor.", "backbone.vision_backbone.sam2_convs.")  # clicks and video share one file


@dataclass(frozen=True)
class Translation:
    """A native checkpoint's weights by transformers' names.

    names: for each of them the native key it came from. dropped: native keys that nothing needs. tracker: keys of the
    click and video model that lay in the same file. unknown: keys that mean nothing here.
    """

    state: dict[str, Tensor]
    names: dict[str, str]
    dropped: tuple[str, ...]
    tracker: tuple[str, ...]
    unknown: tuple[str, ...]


def translate(native: Mapping[str, Tensor]) -> Translation:
    """Translate native weights (no prefix, as the image model names them); the tensors are views of those given."""
    state: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    dropped, tracker, unknown = [], [], []
    for key, value in native.items():
        if key.startswith(_TRACKER):
            tracker.append(key)
        elif _DROPPED.fullmatch(key):
            dropped.append(key)
        elif (name := _renamed(key)) is None:
            unknown.append(key)
        else:
            for part, tensor in _parts(name, value):
                state[part], names[part] = tensor, key
    return Translation(state, names, tuple(dropped), tuple(tracker), tuple(unknown))


def _renamed(key: str) -> str | None:
    """The key by transformers' names, query, key and value still in one; None where it belongs to no part."""
    for native, ours, replacements in _PARTS:
        if key.startswith(native):
            name = key.removeprefix(native)
            for before, after in replacements:
                if before.startswith("."):
                    name = name.replace(before, after)
                elif name.startswith(before):
                    name = after + name.removeprefix(before)
            return _HEADS.sub(lambda found: f"{found[1]}.layer{int(found[2]) + 1}.", ours + name)
    return None


def _parts(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if value.ndim == 0:
        yield name, value  # never a weight: the comparison of keys and sizes names it
    elif ".qkv." in name or ".in_proj_" in name:
        pattern = re.compile(r"\.qkv\.|\.in_proj_")
        for letter, tensor in zip("qkv", value.chunk(3), strict=False):
            yield pattern.sub(f".{letter}_proj.", name), tensor
    elif name.endswith(".position_embeddings"):
        yield name, _without_class_row(value)
    elif name == "text_encoder.text_projection":
        yield f"{name}.weight", value.T
    else:
        yield name, value


def _without_class_row(embedding: Tensor) -> Tensor:
    """(1, 1 + side², C) without its first row; anything else unchanged, for the comparison of sizes to name."""
    if embedding.ndim != 3:
        return embedding
    rows = embedding.shape[1]
    side = int(torch.tensor(float(max(rows - 1, 0))).sqrt().round())
    return embedding[:, 1:] if side * side == rows - 1 else embedding

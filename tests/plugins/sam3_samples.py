"""A random SAM 3 of every part of the full architecture at small width, and the same weights as facebookresearch/sam3
names and shapes them, written out part by part from the native code's structure, not from the converter's tables."""

import torch
from torch import Tensor
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model

NEUTRAL = (49406, 23386, 17011, 49407)  # the tokens of "fuse neutral"


def small_config(layers: int = 2, queries: int = 8, vocabulary: int = 49_408) -> Sam3Config:
    """8 x 8 patches in windows of 4 x 4, a position embedding of 16 patches, all parts; `layers` in each stack."""
    width = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "dropout": 0.1, "num_layers": layers}
    return Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": layers,
                "num_attention_heads": 4,
                "image_size": 112,
                "patch_size": 14,
                "window_size": 4,
                "layer_norm_eps": 1e-5,  # the native code's; transformers' own default is 1e-6
                "pretrain_image_size": 56,
                "global_attn_indexes": [layers - 1],
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "hidden_size": 32,
            "intermediate_size": 128,
            "projection_dim": 24,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "max_position_embeddings": 32,
            "hidden_act": "gelu",
        },
        geometry_encoder_config=width,
        detr_encoder_config=width,
        detr_decoder_config={**width, "num_queries": queries},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 4},
    )


def random_model(config: Sam3Config, seed: int = 0) -> Sam3Model:
    """Random weights of a size that keeps values near 1 through all layers, so that every part matters."""
    torch.manual_seed(seed)
    model = Sam3Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


class NativeLayout:
    """Writes a model's weights out under native names."""

    def __init__(self, model: Sam3Model) -> None:
        self.model = model
        self.state: dict[str, Tensor] = {}
        self._vision()
        self._text()
        self._geometry()
        self._transformer()
        self._heads()

    def _put(self, name: str, module: object) -> None:
        for kind in ("weight", "bias"):
            value = getattr(module, kind, None)
            if value is not None:
                self.state[f"{name}.{kind}"] = value.detach().clone()

    def _attention(self, name: str, module: object, fused: str = "in_proj_", out: str = "out_proj") -> None:
        for kind in ("weight", "bias"):
            parts = [getattr(getattr(module, f"{letter}_proj"), kind) for letter in "qkv"]
            self.state[f"{name}.{fused}{kind}"] = torch.cat(parts).detach().clone()
        self._put(f"{name}.{out}", getattr(module, "o_proj", None) or module.out_proj)

    def _mlp(self, name: str, module: object, layers: int) -> None:
        for number in range(layers):
            self._put(f"{name}.layers.{number}", getattr(module, f"layer{number + 1}"))

    def _vision(self) -> None:
        prefix, vision = "backbone.vision_backbone", self.model.vision_encoder
        embedding = vision.backbone.embeddings.position_embeddings.detach()
        self.state[f"{prefix}.trunk.pos_embed"] = torch.cat([torch.randn_like(embedding[:, :1]), embedding], 1)
        self._put(f"{prefix}.trunk.patch_embed.proj", vision.backbone.embeddings.patch_embeddings.projection)
        self._put(f"{prefix}.trunk.ln_pre", vision.backbone.layer_norm)
        for number, layer in enumerate(vision.backbone.layers):
            block = f"{prefix}.trunk.blocks.{number}"
            self._put(f"{block}.norm1", layer.layer_norm1)
            self._put(f"{block}.norm2", layer.layer_norm2)
            self._put(f"{block}.mlp.fc1", layer.mlp.fc1)
            self._put(f"{block}.mlp.fc2", layer.mlp.fc2)
            self._attention(f"{block}.attn", layer.attention, "qkv.", "proj")
            self.state[f"{block}.attn.freqs_cis"] = torch.randn(16, 8, dtype=torch.complex64)
        for number, level in enumerate(vision.neck.fpn_layers):
            name = f"{prefix}.convs.{number}"
            if number == 0:
                self._put(f"{name}.dconv_2x2_0", level.scale_layers[0])
                self._put(f"{name}.dconv_2x2_1", level.scale_layers[2])
            if number == 1:
                self._put(f"{name}.dconv_2x2", level.scale_layers[0])
            self._put(f"{name}.conv_1x1", level.proj1)
            self._put(f"{name}.conv_3x3", level.proj2)

    def _text(self) -> None:
        prefix, text = "backbone.language_backbone.encoder", self.model.text_encoder
        inner = text.text_model
        self.state[f"{prefix}.positional_embedding"] = inner.embeddings.position_embedding.weight.detach().clone()
        self.state[f"{prefix}.text_projection"] = text.text_projection.weight.detach().T.contiguous()
        self._put(f"{prefix}.token_embedding", inner.embeddings.token_embedding)
        for number, layer in enumerate(inner.encoder.layers):
            block = f"{prefix}.transformer.resblocks.{number}"
            self._attention(f"{block}.attn", layer.self_attn)
            self._put(f"{block}.ln_1", layer.layer_norm1)
            self._put(f"{block}.ln_2", layer.layer_norm2)
            self._put(f"{block}.mlp.c_fc", layer.mlp.fc1)
            self._put(f"{block}.mlp.c_proj", layer.mlp.fc2)
        self._put(f"{prefix}.ln_final", inner.final_layer_norm)
        self._put("backbone.language_backbone.resizer", self.model.text_projection)

    def _encoder_layer(self, name: str, layer: object) -> None:
        self._attention(f"{name}.self_attn", layer.self_attn)
        self._attention(f"{name}.cross_attn_image", layer.cross_attn)
        self._put(f"{name}.linear1", layer.mlp.fc1)
        self._put(f"{name}.linear2", layer.mlp.fc2)
        for number in (1, 2, 3):
            self._put(f"{name}.norm{number}", getattr(layer, f"layer_norm{number}"))

    def _geometry(self) -> None:
        geometry = self.model.geometry_encoder
        same = ("label_embed", "cls_embed", "boxes_direct_project", "boxes_pool_project", "boxes_pos_enc_project")
        for name in (*same, "final_proj"):
            self._put(f"geometry_encoder.{name}", getattr(geometry, name))
        for name in ("direct", "pool", "pos_enc"):
            self._put(f"geometry_encoder.points_{name}_project", torch.nn.Linear(4, 32))
        self._put("geometry_encoder.norm", geometry.prompt_layer_norm)
        self._put("geometry_encoder.img_pre_norm", geometry.vision_layer_norm)
        self._put("geometry_encoder.encode_norm", geometry.output_layer_norm)
        for number, layer in enumerate(geometry.layers):
            self._encoder_layer(f"geometry_encoder.encode.{number}", layer)

    def _transformer(self) -> None:
        for number, layer in enumerate(self.model.detr_encoder.layers):
            self._encoder_layer(f"transformer.encoder.layers.{number}", layer)
        decoder, prefix = self.model.detr_decoder, "transformer.decoder"
        for number, layer in enumerate(decoder.layers):
            name = f"{prefix}.layers.{number}"
            self._attention(f"{name}.self_attn", layer.self_attn)
            self._attention(f"{name}.ca_text", layer.text_cross_attn)
            self._attention(f"{name}.cross_attn", layer.vision_cross_attn)
            self._put(f"{name}.norm1", layer.vision_cross_attn_layer_norm)
            self._put(f"{name}.catext_norm", layer.text_cross_attn_layer_norm)
            self._put(f"{name}.norm2", layer.self_attn_layer_norm)
            self._put(f"{name}.norm3", layer.mlp_layer_norm)
            self._put(f"{name}.linear1", layer.mlp.fc1)
            self._put(f"{name}.linear2", layer.mlp.fc2)
        for name in ("query_embed", "reference_points", "presence_token"):
            self._put(f"{prefix}.{name}", getattr(decoder, name))
        self._put(f"{prefix}.norm", decoder.output_layer_norm)
        self._put(f"{prefix}.presence_token_out_norm", decoder.presence_layer_norm)
        self._mlp(f"{prefix}.bbox_embed", decoder.box_head, 3)
        self._mlp(f"{prefix}.presence_token_head", decoder.presence_head, 3)
        self._mlp(f"{prefix}.ref_point_head", decoder.ref_point_head, 2)
        self._mlp(f"{prefix}.boxRPB_embed_x", decoder.box_rpb_embed_x, 2)
        self._mlp(f"{prefix}.boxRPB_embed_y", decoder.box_rpb_embed_y, 2)

    def _heads(self) -> None:
        masks, prefix = self.model.mask_decoder, "segmentation_head"
        for number in range(3):
            self._put(f"{prefix}.pixel_decoder.conv_layers.{number}", masks.pixel_decoder.conv_layers[number])
            self._put(f"{prefix}.pixel_decoder.norms.{number}", masks.pixel_decoder.norms[number])
            self._put(f"{prefix}.mask_predictor.mask_embed.layers.{number}", masks.mask_embedder.layers[number])
        self._attention(f"{prefix}.cross_attend_prompt", masks.prompt_cross_attn)
        self._put(f"{prefix}.cross_attn_norm", masks.prompt_cross_attn_norm)
        self._put(f"{prefix}.semantic_seg_head", masks.semantic_projection)
        self._put(f"{prefix}.instance_seg_head", masks.instance_projection)
        scoring = self.model.dot_product_scoring
        self._mlp("dot_prod_scoring.prompt_mlp", scoring.text_mlp, 2)
        self._put("dot_prod_scoring.prompt_mlp.out_norm", scoring.text_mlp_out_norm)
        self._put("dot_prod_scoring.prompt_proj", scoring.text_proj)
        self._put("dot_prod_scoring.hs_proj", scoring.query_proj)

"""Owns our use of transformers' SAM 3: the tiny model, its forward pass with the geometry CLS token, the serving graph.

As shipped, transformers' text-only inference leaves out the image-conditioned CLS token which the native model always
appends to the prompt. `Sam3Detector` puts it back, so that training and serving are the native model's computation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model, box_cxcywh_to_xyxy, inverse_sigmoid

PATCH_PIXELS = 14
MASK_CELLS_PER_PATCH = 4  # the mask is this many times finer than the grid of patches
PROMPT = "fuse neutral"
# The tiny text encoder has a vocabulary of 512, so "fuse neutral" gets tokens of its own (begin, fuse, neutral, end).
TINY_PROMPT_TOKENS = (510, 101, 102, 511)


_ATTENTION, _TRAINED_ATTENTION = "fusebus_sdpa", "fusebus_products"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **unused: object,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention whose result is copied: otherwise torch.export records a view that holds for the
    CPU kernel's strides only, and can't convert it. One Attention node is left in the graph either way."""
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
    return attended.transpose(1, 2).clone(memory_format=torch.contiguous_format), None


def _weigh(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **unused: object,
) -> tuple[Tensor, None]:
    """Attention in plain products, the small query scaled instead of the large weights: a tenth off a training step.

    With so small heads it is up to four times faster on a CPU than the fused one.
    """
    weights = torch.matmul(query * (query.size(-1) ** -0.5 if scaling is None else scaling), key.transpose(2, 3))
    weights = weights if attention_mask is None else weights + attention_mask
    return torch.matmul(functional.softmax(weights, dim=-1), value).transpose(1, 2).contiguous(), None


def use_trainable_attention(model: Sam3Model) -> None:
    """Let every attention of `model` be one that trains fast."""
    ALL_ATTENTION_FUNCTIONS.register(_TRAINED_ATTENTION, _weigh)
    use_attention(model, _TRAINED_ATTENTION)


def use_exportable_attention(model: Sam3Model) -> None:
    """Let every attention of `model` be one that torch.export can follow."""
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attend)
    use_attention(model, _ATTENTION)


def use_attention(model: Sam3Model, name: str) -> None:
    """Let every attention of `model` be transformers' implementation of that name."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = name


@dataclass(frozen=True)
class Detections:
    """What every decoder layer says, before top-k. L layers (1 for the last only), Q queries, 4g x 4g mask cells.

    logits: (L, B, Q). boxes: (L, B, Q, 4), x1 y1 x2 y2 as shares of the picture. presence: (L, B, 1) logits.
    queries: (B, Q, C), the last layer's. pixels: (B, C, 4g, 4g), against which a query's mask embedding is multiplied.
    semantic: (B, 1, 4g, 4g) logits.
    """

    logits: Tensor
    boxes: Tensor
    presence: Tensor
    queries: Tensor
    pixels: Tensor
    semantic: Tensor

    def float(self) -> "Detections":
        """The same in float32."""
        return Detections(*(getattr(self, field.name).float() for field in fields(self)))


@dataclass(frozen=True)
class Sight:
    """Vision features of pictures. grid: (B, D, g, g), the backbone's own. coarse: (B, C, g, g). finer:
    (rows, C, 4g, 4g) and (rows, C, 2g, 2g), for masks, of the first `mask_rows` pictures or of all. positions:
    (B, C, g, g)."""

    grid: Tensor
    coarse: Tensor
    finer: tuple[Tensor, ...]
    positions: Tensor
    mask_rows: int | None


def tiny_config(image_size: int = 224, queries: int = 36) -> Sam3Config:
    """The configuration of the demo model, which ends up at 280 pixels: 2 million parameters, the full architecture."""
    grid = image_size // PATCH_PIXELS
    window = 8
    width = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "dropout": 0.0}
    return Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 96,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "image_size": image_size,
                "patch_size": PATCH_PIXELS,
                "window_size": window,
                "pretrain_image_size": PATCH_PIXELS * window,
                "global_attn_indexes": [1, 3],
            },
            "fpn_hidden_size": 64,
            "backbone_feature_sizes": [[grid * scale, grid * scale] for scale in (4, 2, 1)],
        },
        text_config={
            "model_type": "clip_text_model",
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "projection_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 32,
            "bos_token_id": 510,
            "eos_token_id": 511,
            "pad_token_id": 0,
        },
        geometry_encoder_config={**width, "num_layers": 1},
        detr_encoder_config={**width, "num_layers": 2},
        detr_decoder_config={**width, "num_layers": 3, "num_queries": queries},
        mask_decoder_config={"hidden_size": 64, "num_attention_heads": 4},
    )


def load_model(folder: Path) -> Sam3Model:
    """The model kept in a transformers folder, ready for inference."""
    model: Sam3Model = Sam3Model.from_pretrained(folder)
    return model.eval()


class Sam3Detector(nn.Module):  # type: ignore[misc]  # torch is not followed
    """SAM 3 for one text prompt: picture in, every query's detections out."""

    def __init__(self, model: Sam3Model, prompt_tokens: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("tokens", torch.tensor([list(prompt_tokens)]), persistent=False)
        self.grid = int(model.config.vision_config.backbone_config.image_size) // PATCH_PIXELS
        # transformers builds the coordinates from 0-d tensors, which torch.export can't follow: the grid is fixed here.
        model.detr_decoder._get_coords = self._coordinates

    def text_features(self, prompt_tokens: Sequence[int] | None = None) -> Tensor:
        """The embedding (1, tokens, C) of a prompt, by default of the detector's own."""
        tokens = (
            self.tokens if prompt_tokens is None else torch.tensor([list(prompt_tokens)], device=self.tokens.device)
        )
        return self.model.get_text_features(input_ids=tokens).pooler_output

    def forward(
        self, pixels: Tensor, text: Tensor, last_layer_only: bool = False, mask_rows: int | None = None
    ) -> Detections:
        """Detect in `pixels` (B, 3, size, size), normalised to -1..1, what the embedding `text` (1, tokens, C) names.

        Masks cost a lot: with `mask_rows`, `pixels` and `semantic` are those of the first pictures only.
        """
        return self.detect(self.see(pixels, mask_rows), text, last_layer_only)

    def see(self, pixels: Tensor, mask_rows: int | None = None) -> Sight:
        """What the backbone makes of the pictures: the same for every prompt."""
        grid_features = self.grid_features(pixels)
        neck = self.model.vision_encoder.neck
        coarse = neck.fpn_layers[2](grid_features)
        finer = tuple(layer(grid_features[:mask_rows]) for layer in neck.fpn_layers[:2])
        # Positions are constants: computed in float32 whatever the weights' precision.
        positions = neck.position_encoding(coarse.shape, coarse.device, torch.float32).to(coarse.dtype)
        return Sight(grid_features, coarse, finer, positions, mask_rows)

    def grid_features(self, pixels: Tensor) -> Tensor:
        """What the backbone alone makes of the pictures (B, 3, size, size): (B, D, g, g)."""
        hidden = self.model.vision_encoder.backbone(pixels).last_hidden_state
        return hidden.transpose(1, 2).reshape(pixels.shape[0], -1, self.grid, self.grid)

    def detect(self, sight: Sight, text: Tensor, last_layer_only: bool = False) -> Detections:
        """Find what the embedding `text` (1, tokens, C) names in pictures that were seen."""
        coarse, positions, mask_rows = sight.coarse, sight.positions, sight.mask_rows
        token = self._geometry_token(coarse, positions)
        prompt = torch.cat([text.expand(coarse.shape[0], -1, -1), token], dim=1)
        encoded = self.model.detr_encoder(vision_features=[coarse], text_features=prompt, vision_pos_embeds=[positions])
        decoded = self.model.detr_decoder(
            vision_features=encoded.last_hidden_state,
            text_features=prompt,
            vision_pos_encoding=encoded.pos_embeds_flattened,
            spatial_shapes=encoded.spatial_shapes,
        )
        first = -1 if last_layer_only else 0
        states, references = decoded.intermediate_hidden_states[first:], decoded.reference_boxes[first:]
        boxes = (inverse_sigmoid(references) + self.model.detr_decoder.box_head(states)).sigmoid()
        logits = self.model.dot_product_scoring(decoder_hidden_states=states, text_features=prompt).squeeze(-1)
        pixel_features, semantic = self._pixel_features(
            [*sight.finer, coarse[:mask_rows]], encoded.last_hidden_state[:mask_rows], prompt[:mask_rows]
        )
        return Detections(
            logits, box_cxcywh_to_xyxy(boxes), decoded.presence_logits[first:], states[-1], pixel_features, semantic
        )

    def masks(self, queries: Tensor, pixels: Tensor) -> Tensor:
        """Mask logits (B, q, 4g, 4g) of the queries (B, q, C)."""
        return torch.einsum("bqc,bchw->bqhw", self.model.mask_decoder.mask_embedder(queries), pixels)

    def _geometry_token(self, features: Tensor, positions: Tensor) -> Tensor:
        """The image-conditioned CLS token (B, 1, C) which the native model appends to every prompt."""
        encoder = self.model.geometry_encoder
        memory, where = features.flatten(2).transpose(1, 2), positions.flatten(2).transpose(1, 2)
        token = encoder.prompt_layer_norm(encoder.final_proj(encoder.cls_embed.weight))
        token = token.unsqueeze(0).expand(features.shape[0], -1, -1)
        for layer in encoder.layers:
            token = layer(prompt_feats=token, vision_feats=memory, vision_pos_encoding=where, prompt_mask=None)
        return encoder.output_layer_norm(token)

    def _pixel_features(self, features: Sequence[Tensor], encoded: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        decoder = self.model.mask_decoder
        attended, _ = decoder.prompt_cross_attn(
            query=decoder.prompt_cross_attn_norm(encoded), key=prompt, value=prompt, attention_mask=None
        )
        embedded = decoder._embed_pixels(backbone_features=list(features), encoder_hidden_states=encoded + attended)
        return decoder.instance_projection(embedded), decoder.semantic_projection(embedded)

    def _coordinates(
        self, height: object, width: object, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        steps = torch.arange(self.grid, device=device, dtype=dtype) / self.grid
        return steps, steps


class ServingGraph(nn.Module):  # type: ignore[misc]  # torch is not followed
    """What is exported: uint8 pictures in, the `top_k` best detections of all prompts out, the prompts baked in.

    In: images uint8 (B, size, size, 3), RGB. Out: scores float32 (B, K), falling; boxes float32 (B, K, 4), x1 y1 x2 y2
    as shares of the picture; masks uint8 (B, K, 4g, 4g), probability times 255; classes int64 (B, K), which prompt.
    Threshold, NMS and upsampling stay outside. The pictures are seen once, the detector runs for each prompt.
    """

    def __init__(self, detector: Sam3Detector, top_k: int, prompts: Sequence[Sequence[int]] | None = None) -> None:
        """`prompts`: tokens, by default the detector's own. Raises ValueError where there are fewer queries than K."""
        super().__init__()
        self.detector = detector
        self.top_k = top_k
        with torch.no_grad():
            texts = [detector.text_features(tokens) for tokens in prompts or [detector.tokens[0].tolist()]]
        self.texts = nn.ParameterList(nn.Parameter(text.clone(), requires_grad=False) for text in texts)
        self.queries = int(detector.model.config.detr_decoder_config.num_queries)
        if not 1 <= top_k <= self.queries * len(texts):
            raise ValueError(f"top-k {top_k}: the model has {self.queries} queries for each of {len(texts)} prompts")
        use_exportable_attention(detector.model)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is served."""
        scores, boxes, masks, classes, _, _ = self.probed(images)
        return scores, boxes, masks, classes

    def probed(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What is served; then which query each detection is, int64 (B, K), counted over all prompts, and its mask's
        probabilities, float32 (B, K, 4g, 4g), before they are rounded."""
        pixels = images.permute(0, 3, 1, 2).to(self.texts[0].dtype) / 127.5 - 1
        sight = self.detector.see(pixels)
        found = [self.detector.detect(sight, text, last_layer_only=True) for text in self.texts]
        scores = torch.cat([one.logits[-1].float().sigmoid() * one.presence[-1].float().sigmoid() for one in found], 1)
        best, picked = scores.topk(self.top_k, dim=1)
        boxes = _picked(torch.cat([one.boxes[-1] for one in found], 1), picked).float().clamp(0, 1)
        queries = _picked(torch.cat([one.queries for one in found], 1), picked)
        classes = torch.div(picked, self.queries, rounding_mode="floor")
        masks = self.detector.masks(queries, found[0].pixels)
        for number, one in enumerate(found[1:], 1):
            own = (classes == number)[:, :, None, None]
            masks = torch.where(own, self.detector.masks(queries, one.pixels), masks)
        probabilities = masks.float().sigmoid()
        return best, boxes, (probabilities * 255 + 0.5).to(torch.uint8), classes, picked, probabilities


def lower_precision(graph: ServingGraph, precision: torch.dtype) -> ServingGraph:
    """The same graph with its weights in `precision`; constants (rotary frequencies, positions) stay in float32, as
    transformers keeps them: in float16 the angles would be off by up to a hundredth."""
    constants = [
        (module, name, value)
        for module in graph.modules()
        for name, value in module.named_buffers(recurse=False)
        if value.is_floating_point()
    ]
    graph.to(precision)
    for module, name, value in constants:
        setattr(module, name, value)
    return graph


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Of `values` (B, Q, n) the rows `index` (B, K)."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

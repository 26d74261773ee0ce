"""Owns what a fine-tuning starts from: the user's checkpoint, prompt and COCO folder."""

from functools import partial
from pathlib import Path

from transformers.models.sam3.modeling_sam3 import Sam3Model

from fusebus.vision.export.checkpoint import load_checkpoint
from fusebus.vision.export.coco import read_coco
from fusebus.vision.export.coco_pictures import CocoPictures
from fusebus.vision.export.sam3 import MASK_CELLS_PER_PATCH, PATCH_PIXELS
from fusebus.vision.export.tokens import prompt_tokens
from fusebus.vision.export.training import Start


def fine_tuning_start(checkpoint: Path, data: Path, prompt: str) -> Start:
    """Raises CheckpointError or DataError where the checkpoint, the prompt or the data can't be used."""
    loaded = load_checkpoint(checkpoint)
    config = loaded.model.config
    text = config.text_config
    tokens = prompt_tokens(prompt, text.vocab_size, text.max_position_embeddings, loaded.folder)
    size = int(config.vision_config.backbone_config.image_size)
    pictures = partial(_pictures, data, prompt, size, int(config.detr_decoder_config.num_queries))
    pictures()  # what is wrong with the data is told now, not in a helper process
    return Start(partial(_model, checkpoint), pictures, tokens)


def _model(checkpoint: Path) -> Sam3Model:
    return load_checkpoint(checkpoint).model


def _pictures(data: Path, prompt: str, image_size: int, queries: int) -> CocoPictures:
    found = read_coco(data)
    mask_size = image_size // PATCH_PIXELS * MASK_CELLS_PER_PATCH
    return CocoPictures(found, found.category_of(prompt), image_size, mask_size, queries)

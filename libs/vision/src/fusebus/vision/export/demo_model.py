"""Owns the recipe of the demo model: the tiny network, how it is initialised, and what it is trained on.

What makes so small a network learn on two cores (random queries learn nothing in the same time): the backbone starts by
seeing each patch's colours and coarse pattern, and learns alone at first to name what each cell shows; queries start on
a grid of boxes, their attention starts inside their box, and at first instances belong to the nearest grid point; only
then does Hungarian matching take over.
"""

import itertools
import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam3.modeling_sam3 import Sam3Model

from fusebus.vision.boards import KINDS
from fusebus.vision.export.dataset import TRAINING_SEED_BASE, keep_boards, kept_boards
from fusebus.vision.export.sam3 import MASK_CELLS_PER_PATCH, PATCH_PIXELS, TINY_PROMPT_TOKENS, tiny_config
from fusebus.vision.export.training import Finish, Start

BOARDS = 5000
FINISH_BOARDS = 3000  # none of those seen before
IMAGE_SIZE = 224
FINISH_SIZE = 280  # of the finish, and of the model: sees more, but would take half as long again in every step
_GRID = 6  # queries stand on a grid of 6 x 6 reference boxes
_START_BOX = (0.13, 0.26)  # width and height of a reference box as shares of the picture: a typical neutral


def demo_start(
    folder: Path, *, boards: int = BOARDS, finish_boards: int = FINISH_BOARDS, seed: int = 0, processes: int = 2
) -> Start:
    """Draw the boards into `folder`, unless they are there, and return what the demo model's training starts from.

    Without `finish_boards` all of it is at IMAGE_SIZE, and so is the model.
    """
    middle = TRAINING_SEED_BASE + boards
    main, finish = folder / "boards", folder / "finish-boards"
    _draw(main, range(TRAINING_SEED_BASE, middle), IMAGE_SIZE, processes)
    if finish_boards:
        _draw(finish, range(middle, middle + finish_boards), FINISH_SIZE, processes)
    return Start(
        partial(new_model, IMAGE_SIZE, seed),
        partial(kept_boards, main),
        TINY_PROMPT_TOKENS,
        grid_anchors(),
        KINDS,
        Finish(partial(new_model, FINISH_SIZE, seed), partial(kept_boards, finish)) if finish_boards else None,
    )


def _draw(folder: Path, seeds: range, image_size: int, processes: int) -> None:
    keep_boards(folder, seeds, image_size, image_size // PATCH_PIXELS * MASK_CELLS_PER_PATCH, processes)


def new_model(image_size: int, seed: int = 0) -> Sam3Model:
    """The tiny model, initialised so that it can learn from a few thousand pictures."""
    torch.manual_seed(seed)
    model = Sam3Model(tiny_config(image_size, _GRID * _GRID))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
    _see_patterns(model.vision_encoder.backbone.embeddings.patch_embeddings.projection)
    for layer in model.vision_encoder.backbone.layers:
        _look_for_the_like(layer.attention)
    decoder = model.detr_decoder
    with torch.no_grad():
        decoder.query_embed.weight.normal_(0, 0.5)
        start = torch.cat([grid_anchors(), torch.tensor(_START_BOX).expand(_GRID * _GRID, 2)], dim=1)
        decoder.reference_points.weight.copy_(torch.logit(start))
        decoder.box_head.layer3.weight.zero_()
        decoder.box_head.layer3.bias.zero_()
        for bias in (decoder.box_rpb_embed_x, decoder.box_rpb_embed_y):
            _attend_inside(bias.layer1, bias.layer2)
    return model


def grid_anchors() -> Tensor:
    """The centres (36, 2) of the reference boxes, x and y as shares of the picture."""
    steps = (torch.arange(_GRID) + 0.5) / _GRID
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def _see_patterns(projection: nn.Conv2d) -> None:
    """Let a patch's features be its lowest cosine frequencies, half of brightness and a quarter of each colour
    difference, all of about the same strength in a photo (whose frequencies weaken as they rise)."""
    width, size = projection.weight.shape[0], projection.weight.shape[-1]
    steps = torch.arange(size, dtype=torch.float32)
    waves = torch.cos(math.pi * (steps + 0.5) * steps[:, None] / size) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    order = sorted(itertools.product(range(size), repeat=2), key=lambda wave: (wave[0] ** 2 + wave[1] ** 2, wave))
    patterns = []
    for weights, gain, share in (((1, 1, 1), 0.05, 2), ((1, 0, -1), 0.17, 4), ((1, -2, 1), 0.2, 4)):
        colour = functional.normalize(torch.tensor(weights, dtype=torch.float32), dim=0)
        for down, across in order[: width // share]:
            rise = gain * (0.6 + 0.6 * math.hypot(down, across) if down or across else 1.6)
            patterns.append(rise * colour[:, None, None] * waves[down][:, None] * waves[across])
    with torch.no_grad():
        projection.weight.copy_(torch.stack(patterns))


def _look_for_the_like(attention: nn.Module) -> None:
    """Let patches attend to near ones like themselves, as trained transformers do (Trockman and Kolter, 2023)."""
    width = attention.q_proj.weight.shape[0]

    def mixed(share: float, noise: float) -> Tensor:
        return share * torch.eye(width) + torch.randn(width, width) * (noise / math.sqrt(width))

    with torch.no_grad():
        attention.q_proj.weight.copy_(mixed(0.7, 0.3))
        attention.k_proj.weight.copy_(mixed(0.7, 0.3))
        attention.v_proj.weight.copy_(mixed(0.4, 0.5))
        attention.o_proj.weight.copy_(mixed(-0.4, 0.5))


def _attend_inside(first: nn.Linear, second: nn.Linear) -> None:
    """Make the relative-position bias 0 inside the reference box and fall outside, each head more steeply."""
    first.weight[:2] = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])  # before the lower edge; beyond the upper edge
    first.bias[:2] = 0
    second.weight.mul_(0.1)
    second.weight[:, :2] = -torch.linspace(4, 16, second.out_features).unsqueeze(1)
    second.bias.zero_()

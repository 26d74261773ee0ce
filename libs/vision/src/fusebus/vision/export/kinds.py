"""Owns the lesson that makes a small backbone learn fast: naming what each cell of a picture shows.

The generator knows that of every pixel, so each patch gets an answer of its own instead of one box in a few dozens.
The head that names kinds is needed in training only: it is kept with the state, and not in the model.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusebus.vision.export.sam3 import MASK_CELLS_PER_PATCH

_REST_WEIGHT = 0.3  # of cells that show nothing in particular, which are most of them


class KindHead(nn.Module):  # type: ignore[misc]  # torch is not followed
    """One linear layer from the features of a patch to the kinds of its cells."""

    def __init__(self, width: int, kinds: int) -> None:
        super().__init__()
        self.kinds = kinds
        self.layer = nn.Linear(width, kinds * MASK_CELLS_PER_PATCH**2)

    def forward(self, grid: Tensor) -> Tensor:
        """Logits (B, kinds, 4g, 4g) from the backbone's features (B, C, g, g)."""
        return functional.pixel_shuffle(self.layer(grid.movedim(1, -1)).movedim(-1, 1), MASK_CELLS_PER_PATCH)


def kind_loss(logits: Tensor, kinds: Tensor) -> Tensor:
    """Cross-entropy of logits (B, kinds, 4g, 4g) with the true kinds (B, 4g, 4g), int64."""
    weight = torch.ones(logits.shape[1], device=logits.device)
    weight[0] = _REST_WEIGHT
    return functional.cross_entropy(logits.float(), kinds, weight=weight)

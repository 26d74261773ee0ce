"""The narrow port behind which a model runs; one file for each way to run it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Outputs(NamedTuple):
    """What a model says of a batch of B pictures (or, without that dimension, of one)."""

    scores: NDArray[np.float32]
    """(B, K), 0 to 1."""
    boxes: NDArray[np.float32]
    """(B, K, 4): x0, y0, x1, y1 as shares of the picture."""
    masks: NDArray[np.uint8]
    """(B, K, rows, columns): probability × 255 over the whole picture."""
    classes: NDArray[np.int64]
    """(B, K): indices of the manifest's prompts."""

    def of(self, index: int) -> Outputs:
        """One picture's part."""
        return Outputs(self.scores[index], self.boxes[index], self.masks[index], self.classes[index])


class Backend(Protocol):
    """A loaded model. It is opened and used by one thread only."""

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Detect in `images`, uint8 (B, size, size, 3), RGB; B varies from call to call."""
        ...


class BackendError(Exception):
    """The model cannot run here as it was asked to; the text says what is missing and the way out."""

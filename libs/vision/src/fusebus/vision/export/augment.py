"""Owns how a training picture is varied each time it is seen: crop, mirror, colour; all of it follows from its dice."""

import cv2
import numpy as np
from numpy.typing import NDArray

_CROP = 0.16  # at most this share of the picture is cut off at a side, and never a part of an instance
_MARGIN = 0.012  # share of the picture left between an instance and a cut


def varied(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    masks: NDArray[np.uint8],
    kinds: NDArray[np.uint8],
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture as float32 (size, size, 3) in -1..1, its boxes (m, 4) as shares, masks (m, g, g) and kinds (g, g),
    varied alike."""
    low, high = _window(boxes, random)
    image = _cropped(image, low, high)
    boxes = ((boxes.reshape(-1, 2) - low) / (high - low)).reshape(-1, 4).clip(0, 1).astype(np.float32)
    masks = np.stack([_cropped(mask, low, high) for mask in masks]) if len(masks) else masks
    kinds = _cropped(kinds, low, high, cv2.INTER_NEAREST)
    if random.random() < 0.5:
        image, masks, kinds = image[:, ::-1], masks[:, :, ::-1], kinds[:, ::-1]
        boxes = (boxes * np.array([-1, 1, -1, 1]) + np.array([1, 0, 1, 0]))[:, [2, 1, 0, 3]].astype(np.float32)
    return _recoloured(image, random), boxes, masks, kinds


def _window(boxes: NDArray[np.float32], random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The corners of what is kept: all of every instance, and a part of what is round them."""
    free = boxes.reshape(-1, 2, 2) if len(boxes) else np.full((1, 2, 2), [[0.5], [0.5]])
    low = np.minimum(_CROP, free[:, 0].min(0) - _MARGIN).clip(0)
    high = np.minimum(_CROP, 1 - free[:, 1].max(0) - _MARGIN).clip(0)
    kept = random.random() < 0.25
    return low * random.random(2) * (not kept), 1 - high * random.random(2) * (not kept)


def _cropped(
    picture: NDArray[np.uint8], low: NDArray[np.float64], high: NDArray[np.float64], between: int = cv2.INTER_LINEAR
) -> NDArray[np.uint8]:
    size = picture.shape[0]
    if (low == 0).all() and (high == 1).all():
        return picture
    scale = 1 / (high - low)
    # From pixel centres to pixel centres, so that no crop shifts the picture by half a pixel.
    shift = scale * (0.5 - low * size) - 0.5
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    warped = cv2.warpAffine(picture, matrix, (size, size), flags=between, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def _recoloured(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.float32]:
    """Other light and another camera: contrast, brightness, white balance, noise."""
    gain = (np.exp(random.normal(0, 0.12)) * np.exp(random.normal(0, 0.05, 3)) / 127.5).astype(np.float32)
    lit = image * gain
    lit += np.float32(random.normal(0, 0.06) - 1)
    if random.random() < 0.3:
        lit += random.standard_normal(image.shape[:2], np.float32)[:, :, None] * np.float32(random.uniform(0, 0.06))
    return np.asarray(np.clip(lit, -1, 1, out=lit), np.float32)

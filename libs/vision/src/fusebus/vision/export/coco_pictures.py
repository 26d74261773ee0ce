"""Owns a COCO folder as training pictures: decoded when needed, squashed, with the truth at the mask's size."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from fusebus.vision.export.coco import CocoFolder, DataError, Sample
from fusebus.vision.export.dataset import Example, Examples, gathered, squash

_THREADS = 4  # decode a batch's pictures beside each other; both decoders release the interpreter
_KEPT_BYTES = 2_000_000_000  # of squashed pictures that are kept in memory, per process


class CocoPictures:
    """The pictures of a folder and the instances of one category in them; groups of things ("crowd") are left out."""

    def __init__(self, data: CocoFolder, category: int, image_size: int, mask_size: int, most: int) -> None:
        """`most` instances in a picture can be learnt: the model's queries. Raises DataError where one has more."""
        self._samples, self._category = data.samples, category
        self._image_size, self._mask_size = image_size, mask_size
        self._kept: OrderedDict[int, Example] = OrderedDict()
        for sample in data.samples:
            number = len(_wanted(sample, category))
            if number > most:
                raise DataError(f"{sample.name}: has {number} instances, the model has {most} queries")
        if not any(_wanted(sample, category) for sample in data.samples):
            raise DataError(f"{data.folder}: not one instance of {data.categories[category]!r}")

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, index: NDArray[np.int64]) -> Examples:
        """The pictures of these numbers. Raises DataError for one that can't be read."""
        with ThreadPoolExecutor(_THREADS) as pool:
            examples = list(pool.map(self._example, index.tolist()))
        return gathered(examples, self._mask_size)

    def _example(self, number: int) -> Example:
        if number not in self._kept:
            example = example_of(self._samples[number], self._category, self._image_size, self._mask_size)
            size = sum(part.nbytes for part in example)
            if (len(self._kept) + 1) * size > _KEPT_BYTES:
                return example
            self._kept[number] = example
        return self._kept[number]


def example_of(sample: Sample, category: int, image_size: int, mask_size: int) -> Example:
    """A picture squashed to `image_size`, its boxes as shares, and masks as shares of each cell times 255."""
    image = squash(sample.read(), image_size)
    wanted = _wanted(sample, category)
    boxes = np.zeros((len(wanted), 4), np.float32)
    masks = np.zeros((len(wanted), mask_size, mask_size), np.uint8)
    for row, run_lengths in enumerate(wanted):
        whole = coco_mask.decode(run_lengths) * np.uint8(255)
        masks[row] = cv2.resize(whole, (mask_size, mask_size), interpolation=cv2.INTER_AREA)
        left, top, width, height = coco_mask.toBbox(run_lengths)
        boxes[row] = (
            left / sample.width,
            top / sample.height,
            (left + width) / sample.width,
            (top + height) / sample.height,
        )
    return image, boxes, masks


def _wanted(sample: Sample, category: int) -> list[dict[str, object]]:
    return [one.mask for one in sample.instances if one.category == category and not one.crowd]

"""Owns COCO folders: pictures beside one JSON file that outlines the things in them, as annotation tools export it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from fusebus.vision.decode import decode
from fusebus.vision.errors import ImageError
from fusebus.vision.rle import RunLengths, encode

_ANNOTATIONS = (
    "annotations.json",
    "_annotations.coco.json",
    "instances_default.json",
    "annotations/instances_default.json",
)
_PICTURES = ("", "images")  # folders that a picture's name is looked for in

RunLengthsOrBytes = dict[str, Any]
"""pycocotools' own form of a mask: size [height, width], counts as bytes."""


class DataError(Exception):
    """A COCO folder can't be used; the text names file and reason."""


@dataclass(frozen=True)
class Instance:
    """A thing in a picture. category: its id. mask: run lengths at the picture's size. crowd: several things in one."""

    category: int
    mask: RunLengthsOrBytes
    crowd: bool = False


@dataclass(frozen=True)
class Sample:
    """A picture with what is in it, from a file at `path` or as `data`; `read` gives uint8 (height, width, 3) RGB."""

    name: str
    width: int
    height: int
    instances: tuple[Instance, ...]
    path: Path | None = None
    data: bytes | None = None

    def file(self) -> bytes:
        """The picture's file: what was drawn, or what lies at `path`. Raises DataError."""
        if self.data is not None:
            return self.data
        assert self.path is not None
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.path}: {error}") from error

    def read(self) -> NDArray[np.uint8]:
        """The pixels, upright."""
        try:
            pixels = decode(self.file())
        except ImageError as error:
            raise DataError(f"{self.path or self.name}: {error}") from error
        if pixels.shape[:2] != (self.height, self.width):
            raise DataError(
                f"{self.path}: has {pixels.shape[1]} x {pixels.shape[0]} pixels upright, its annotations were made for "
                f"{self.width} x {self.height}; rotate the file itself and annotate it again"
            )
        return pixels


@dataclass(frozen=True)
class CocoFolder:
    """What a folder holds. categories: names by id."""

    folder: Path
    categories: dict[int, str]
    samples: tuple[Sample, ...]

    def category_of(self, prompt: str) -> int:
        """The id of the category that `prompt` asks for: of that name, or the only one. Raises DataError."""
        for number, name in self.categories.items():
            if name.strip().lower() == prompt.strip().lower():
                return number
        if len(self.categories) == 1:
            return next(iter(self.categories))
        names = ", ".join(sorted(self.categories.values()))
        raise DataError(f"{self.folder}: has no category {prompt!r}, but {names}; name one of these as the prompt")


def read_coco(folder: Path) -> CocoFolder:
    """The annotations in `folder`; pictures are read later. Raises DataError."""
    path = _annotations(folder)
    try:
        found = json.loads(path.read_bytes())
        categories = {int(one["id"]): str(one["name"]) for one in found["categories"]}
        instances: dict[int, list[Any]] = {}
        for one in found["annotations"]:
            instances.setdefault(int(one["image_id"]), []).append(one)
        samples = [_sample(folder, one, instances.get(int(one["id"]), []), categories) for one in found["images"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not COCO's format: {type(error).__name__} {error}") from error
    if not samples:
        raise DataError(f"{path}: lists no images")
    return CocoFolder(folder, categories, tuple(sorted(samples, key=lambda sample: sample.name)))


def _annotations(folder: Path) -> Path:
    for name in _ANNOTATIONS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.json")) + sorted(folder.glob("annotations/*.json"))
    if len(others) == 1:
        return others[0]
    found = f"{len(others)} JSON files" if others else "no JSON file"
    raise DataError(f"{folder}: {found}; put the annotations there as {_ANNOTATIONS[0]}")


def _sample(folder: Path, image: Any, instances: list[Any], categories: dict[int, str]) -> Sample:
    width, height, name = int(image["width"]), int(image["height"]), str(image["file_name"])
    places = [folder / place / name for place in _PICTURES]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(f"{places[0]}: no such picture")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{path}: lies outside {folder}")
    masks = []
    for one in instances:
        if int(one["category_id"]) not in categories:
            raise DataError(f"{name}: annotation {one.get('id')} has category {one['category_id']}, which isn't listed")
        mask = _run_lengths(one.get("segmentation"), width, height, f"{name}: annotation {one.get('id')}")
        masks.append(Instance(int(one["category_id"]), mask, bool(one.get("iscrowd", 0))))
    return Sample(name, width, height, tuple(masks), path)


def _run_lengths(segmentation: Any, width: int, height: int, where: str) -> RunLengthsOrBytes:
    """A mask from polygons, from run lengths, or from COCO's text for these."""
    try:
        if isinstance(segmentation, list) and segmentation:
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
            if not polygons:
                raise DataError(f"{where}: its polygons have fewer than three points")
            return dict(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
        if isinstance(segmentation, dict):
            if list(segmentation["size"]) != [height, width]:
                raise DataError(f"{where}: its mask has another size than its picture")
            if isinstance(segmentation["counts"], list):
                return dict(coco_mask.frPyObjects(segmentation, height, width))
            counts = segmentation["counts"]
            return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{where}: its segmentation can't be read: {error}") from error
    raise DataError(f"{where}: has no segmentation; masks are needed, as polygons or as run lengths")


def run_lengths(mask: NDArray[np.bool_], box: tuple[int, int, int, int]) -> RunLengthsOrBytes:
    """pycocotools' form of a mask whose pixels all lie in `box`, x0 y0 x1 y1."""
    found: RunLengths = encode(mask, box)
    return {"size": found["size"], "counts": found["counts"].encode()}


def write_coco(folder: Path, samples: Iterable[Sample], categories: dict[int, str]) -> None:
    """Write the pictures' files and, last, annotations.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, sample in enumerate(samples, start=1):
        (folder / sample.name).write_bytes(sample.file())
        images.append({"id": number, "file_name": sample.name, "width": sample.width, "height": sample.height})
        annotations += list(_annotated(sample, number, len(annotations)))
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }
    (folder / _ANNOTATIONS[0]).write_text(json.dumps(content))


def _annotated(sample: Sample, image: int, before: int) -> Iterator[dict[str, Any]]:
    for number, instance in enumerate(sample.instances, start=before + 1):
        yield {
            "id": number,
            "image_id": image,
            "category_id": instance.category,
            "segmentation": {"size": instance.mask["size"], "counts": instance.mask["counts"].decode()},
            "bbox": coco_mask.toBbox(instance.mask).tolist(),
            "area": int(coco_mask.area(instance.mask)),
            "iscrowd": int(instance.crowd),
        }

"""Owns the run of an evaluation: pictures in, one after the other; figures, tables and the worst pictures out."""

import heapq
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from fusebus.models.manifest import read_manifest, write_manifest
from fusebus.vision.export.coco import CocoFolder, Sample, read_coco, write_coco
from fusebus.vision.export.evaluate import (
    FIRST_SEED,
    MEGAPIXELS,
    Bin,
    Figures,
    Judged,
    Model,
    best_thresholds,
    board_samples,
    class_of_category,
    count_accuracy,
    figures,
    judge,
    reliability,
)
from fusebus.vision.export.worst import badness, draw, write_worst

_TRIED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # thresholds whose counting is told beside the chosen one


@dataclass(frozen=True)
class Pictures:
    """Which pictures to measure on: a COCO folder, or synthetic boards, which `data` then keeps."""

    data: Path | None
    boards: int | None = None
    first_seed: int = FIRST_SEED
    megapixels: float = MEGAPIXELS

    @property
    def command(self) -> str:
        """What to call to measure the same again."""
        if self.boards is None:
            return "fusebus model evaluate MODEL --data FOLDER"
        smaller = "" if self.megapixels == MEGAPIXELS else f" --megapixels {self.megapixels:g}"
        return f"fusebus model evaluate MODEL --boards {self.boards} --first-seed {self.first_seed}{smaller}"

    def open(self) -> CocoFolder | None:
        """The folder; None for boards that are drawn and not kept. Raises DataError."""
        if self.boards is not None and self.data is not None and not list(self.data.glob("*.json")):
            write_coco(self.data, self._drawn(self.boards), {1: "fuse neutral"})
        return None if self.data is None else read_coco(self.data)

    def samples(self, folder: CocoFolder | None) -> Iterator[Sample]:
        """One after the other: each may have 36 MB of pixels."""
        yield from self._drawn(self.boards or 0) if folder is None else folder.samples

    def _drawn(self, boards: int) -> Iterator[Sample]:
        return board_samples(range(self.first_seed, self.first_seed + boards), self.megapixels)


@dataclass(frozen=True)
class Measurement:
    """What an evaluation says. counting: count accuracy by threshold, the same for every class."""

    thresholds: tuple[float, ...]
    figures: Figures
    counting: tuple[tuple[float, float], ...]
    bins: tuple[Bin, ...]

    def lines(self) -> list[str]:
        """For people."""
        told = self.figures
        first = [
            f"{told.pictures} pictures, {told.instances} instances; thresholds {', '.join(map(str, self.thresholds))}",
            f"AP {told.ap:.4f}   AP50 {told.ap50:.4f}   AP75 {told.ap75:.4f}   (masks as served; boxes: AP50 "
            f"{told.box_ap50:.4f})",
            f"count accuracy {told.count_accuracy:.1%}   recall {told.recall:.4f}   precision {told.precision:.4f}   "
            f"mean mask IoU {told.mean_mask_iou:.4f}   {told.cpu_ms:.1f} ms a picture",
            "count accuracy by threshold: " + "  ".join(f"{at:g}: {share:.1%}" for at, share in self.counting),
            f"reliability (calibration error {told.calibration_error:.4f}):",
            "  score        number  mean score  right",
        ]
        return first + [
            f"  {one.low:.1f} to {one.high:.1f}   {one.number:6}  {one.score:10.3f}  {one.right:.3f}"
            for one in self.bins
        ]


def measure(folder: Path, pictures: Pictures, out: Path | None, worst: int, tune: bool = False) -> Measurement:
    """Run the model in `folder` on all pictures and draw the `worst` into `out`; `tune` chooses the thresholds first.

    Raises DataError, ModelError.
    """
    model = Model(folder)
    data = pictures.open()
    classes = class_of_category(model.manifest, data)
    thresholds = model.manifest.score_thresholds
    judged: list[Judged] = []
    bad: list[tuple[tuple[int, float], int, bytes]] = []
    for number, sample in enumerate(pictures.samples(data)):
        pixels = sample.read()
        judged.append(judge(model, sample, classes))
        grade = badness(judged[-1], thresholds)
        if out is not None and (len(bad) < worst or grade > bad[0][0]):
            entry = (grade, -number, draw(judged[-1], pixels, thresholds))
            (heapq.heappush if len(bad) < worst else heapq.heapreplace)(bad, entry)
    if tune:
        thresholds = best_thresholds(judged, len(thresholds))
    if out is not None:
        write_worst(out, [(judged[-number], jpeg) for _, number, jpeg in sorted(bad, reverse=True)])
    tried = tuple((at, count_accuracy(judged, [at] * len(thresholds))) for at in _TRIED)
    return Measurement(thresholds, figures(judged, thresholds), tried, tuple(reliability(judged)))


def record_thresholds(folder: Path, thresholds: tuple[float, ...]) -> None:
    """Write the thresholds into the model's manifest."""
    write_manifest(folder, msgspec.structs.replace(read_manifest(folder), score_thresholds=thresholds))


def record_figures(folder: Path, measured: Measurement, command: str) -> None:
    """Write the figures into the model's manifest, with the command that gave them."""
    facts = {"command": command, **asdict(measured.figures)}
    write_manifest(folder, msgspec.structs.replace(read_manifest(folder), measured=json.loads(json.dumps(facts))))

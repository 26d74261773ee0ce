"""Owns the training of the demo model: initialisation, schedule, augmentation and checkpoints.

What makes so small a network learn on two cores (random queries learn nothing in the same time): queries start on a
grid of boxes, their attention starts inside their box, and for the first part of the training instances belong to the
nearest grid point; only then does Hungarian matching take over.
"""

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing, nn
from transformers.models.sam3.modeling_sam3 import Sam3Model

from fusebus.vision.export.dataset import TRAINING_SEED_BASE, BoardSet, load_boards, load_or_make_boards
from fusebus.vision.export.loss import Truth, detection_loss
from fusebus.vision.export.sam3 import (
    MASK_CELLS_PER_PATCH,
    PATCH_PIXELS,
    TINY_PROMPT_TOKENS,
    Sam3Detector,
    tiny_config,
    use_attention,
)

_BOARDS = "boards.npz"
_GRID = 6  # queries stand on a grid of 6 x 6 reference boxes
_START_BOX = (0.13, 0.26)  # width and height of a reference box as shares of the picture: a typical neutral
_CHECKPOINT_SECONDS = 60.0
_REPORT_STEPS = 50
_AVERAGING = 0.998  # decay per step of the averaged weights, which are what is kept


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is made of. It ends at `minutes` or `steps`, whichever comes first; only steps repeat exactly."""

    minutes: float = 20.0
    steps: int = 20_000
    seed: int = 0
    boards: int = 3000
    batch: int = 24  # pictures per step, over all processes
    mask_rows: int = 8  # of a batch: masks cost most of a step, and learn well enough from a part of it
    image_size: int = 224
    learning_rate: float = 1e-3
    grid_share: float = 0.6  # of the training during which instances belong to the nearest grid point
    processes: int = 2  # with one thread each: operations this small lose more by threads than they gain


def train(plan: TrainingPlan, folder: Path, resume: bool, report: Callable[[str], None]) -> None:
    """Train into `folder` (a transformers folder plus training.json), with a line of progress now and then.

    `report` is called in the first training process, not in the caller's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(TRAINING_SEED_BASE, TRAINING_SEED_BASE + plan.boards)
    mask_size = plan.image_size // PATCH_PIXELS * MASK_CELLS_PER_PATCH
    report(f"drawing {plan.boards} boards")
    load_or_make_boards(folder / _BOARDS, seeds, plan.image_size, mask_size, os.cpu_count() or 1)
    meeting = folder / f"meeting-{time.time_ns()}"  # through this file the processes find each other
    multiprocessing.spawn(_work, (plan, folder, resume, report, meeting), plan.processes)
    meeting.unlink(missing_ok=True)


def _work(
    rank: int, plan: TrainingPlan, folder: Path, resume: bool, report: Callable[[str], None], meeting: Path
) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all processes are on this machine
    distributed.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=plan.processes)
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    boards = load_boards(folder / _BOARDS)
    model = Sam3Model.from_pretrained(folder) if resume else new_model(plan.image_size)
    _Run(plan, model, boards, folder, resume, rank).run(report)
    distributed.destroy_process_group()


def new_model(image_size: int) -> Sam3Model:
    """The tiny model, initialised so that it can learn from a few thousand pictures."""
    model = Sam3Model(tiny_config(image_size, _GRID * _GRID))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
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


def _attend_inside(first: nn.Linear, second: nn.Linear) -> None:
    """Make the relative-position bias 0 inside the reference box and fall outside, each head more steeply."""
    first.weight[:2] = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])  # before the lower edge; beyond the upper edge
    first.bias[:2] = 0
    second.weight.mul_(0.1)
    second.weight[:, :2] = -torch.linspace(4, 16, second.out_features).unsqueeze(1)
    second.bias.zero_()


class _Run:
    """One process's part of the training: its share of every batch, and the same weights as the others."""

    def __init__(
        self, plan: TrainingPlan, model: Sam3Model, boards: BoardSet, folder: Path, resume: bool, rank: int
    ) -> None:
        self.plan, self.boards, self.folder, self.resume, self.rank = plan, boards, folder, resume, rank
        use_attention(model, "eager")  # with so small heads up to four times faster than the fused one on a CPU
        self.detector = Sam3Detector(model, TINY_PROMPT_TOKENS).train()
        self.averaged: Sam3Model = copy.deepcopy(model).eval()
        decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98), fused=True)
        self.random = np.random.default_rng(plan.seed)
        self.order = np.empty(0, np.int64)

    def run(self, report: Callable[[str], None]) -> None:
        plan, started, saved, step, progress = self.plan, time.monotonic(), time.monotonic(), 0, 0.0
        anchors = grid_anchors()
        while progress < 1:
            by_grid = progress < plan.grid_share
            elapsed = time.monotonic() - started
            loss, parts, progress = self._step(
                self._rate(step, progress),
                anchors if by_grid else None,
                max((step + 1) / plan.steps, elapsed / 60 / plan.minutes),
            )
            step += 1
            if self.rank:
                continue
            self._average(step)
            if step % _REPORT_STEPS == 0:
                words = " ".join(f"{name} {value:.3f}" for name, value in parts.items())
                report(f"{progress:6.1%} step {step} {elapsed / step:.3f} s/step loss {loss:.3f}: {words}")
            if time.monotonic() - saved > _CHECKPOINT_SECONDS or progress >= 1:
                self._save(step, elapsed)
                saved = time.monotonic()

    def _rate(self, step: int, progress: float) -> float:
        """Linear warm-up over 200 steps, then down a cosine to a fiftieth."""
        return (
            self.plan.learning_rate
            * min(1.0, (step + 1) / 200)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
        )

    def _step(self, rate: float, anchors: Tensor | None, progress: float) -> tuple[float, dict[str, float], float]:
        """One step of all processes; returns loss, its parts and the first process's progress, which counts for all."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        pixels, truth = self._batch()
        with torch.autocast("cpu", torch.bfloat16):  # a third faster where the processor has bfloat16 units
            found = self.detector(
                pixels, self.detector.text_features(), mask_rows=self.plan.mask_rows // self.plan.processes
            ).float()
        loss, parts = detection_loss(self.detector, found, truth, anchors)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        progress = self._share_gradients(progress)
        nn.utils.clip_grad_norm_(self.detector.parameters(), 1.0)
        self.optimizer.step()
        return loss.item(), parts, progress

    def _share_gradients(self, progress: float) -> float:
        parameters = [parameter for parameter in self.detector.parameters() if parameter.grad is not None]
        clock = torch.tensor([0.0 if self.rank else progress * self.plan.processes])
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters] + [clock])
        distributed.all_reduce(flat)
        flat /= self.plan.processes
        pieces = flat[:-1].split([parameter.numel() for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)
        return float(flat[-1])

    def _batch(self) -> tuple[Tensor, Truth]:
        if len(self.order) < self.plan.batch:
            self.order = self.random.permutation(len(self.boards.images))
        index, self.order = self.order[: self.plan.batch], self.order[self.plan.batch :]
        index = index[self.rank :: self.plan.processes]
        pixels = torch.from_numpy(self.boards.images[index]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        boxes = torch.from_numpy(self.boards.boxes[index])
        masks = torch.from_numpy(self.boards.masks[index]).float() / 255
        mirrored = torch.from_numpy(self.random.random(len(index)) < 0.5)
        pixels[mirrored] = pixels[mirrored].flip(-1)
        masks[mirrored] = masks[mirrored].flip(-1)
        boxes[mirrored] = (boxes[mirrored] * torch.tensor([-1.0, 1, -1, 1]) + torch.tensor([1.0, 0, 1, 0]))[
            ..., [2, 1, 0, 3]
        ]
        gain = torch.from_numpy(self.random.normal(1, 0.1, (len(index), 3, 1, 1))).float()
        shift = torch.from_numpy(self.random.normal(0, 0.06, (len(index), 1, 1, 1))).float()
        return pixels.mul_(gain).add_(shift).clamp_(-1, 1), Truth(boxes, masks, self.boards.counts[index].tolist())

    def _average(self, step: int) -> None:
        decay = min(_AVERAGING, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.detector.model.parameters()), 1 - decay)

    def _save(self, step: int, elapsed: float) -> None:
        self.averaged.save_pretrained(self.folder)
        record = {
            **asdict(self.plan),
            "steps_done": step,
            "minutes_done": round(elapsed / 60, 1),
            "resumed": self.resume,
        }
        (self.folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")

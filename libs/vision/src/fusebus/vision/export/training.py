"""Owns the training loop: schedule, matching, optimizer, processes, and a state from which it goes on to the very bit.

Everything random follows from the seed, the step and the picture's number, so that the position in the data is the step
itself and a training that was interrupted and continued gives the same weights as one that was not.
"""

import copy
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.models.sam3.modeling_sam3 import Sam3Model

from fusebus.vision.export.augment import varied
from fusebus.vision.export.dataset import Examples
from fusebus.vision.export.kinds import KindHead, kind_loss
from fusebus.vision.export.loss import Truth, detection_loss
from fusebus.vision.export.sam3 import Sam3Detector, use_trainable_attention
from fusebus.vision.export.sharing import Share, shared
from fusebus.vision.export.training_state import Trained, load_state, save_state

_REPORT_STEPS = 50
_KINDS_WEIGHT = 5.0  # of naming what cells show, beside finding: about as much as all boxes of a layer
_AVERAGING = 0.998  # decay per step of the averaged weights, which are what is kept


class Pictures(Protocol):
    """What is trained on: pictures that can be had by number, as often as asked for."""

    def __len__(self) -> int: ...

    def batch(self, index: NDArray[np.int64]) -> Examples: ...


@dataclass(frozen=True)
class TrainingPlan:
    """What a training is made of. The same plan, pictures and start give the same weights on the same machine."""

    steps: int = 4400
    seed: int = 0
    batch: int = 16  # pictures per step, over all processes
    mask_rows: int = 6  # of a batch: masks cost most of a step, and learn well enough from a part of it
    learning_rate: float = 1e-3
    warm_up_steps: int = 200
    grid_share: float = 0.33  # of the training during which instances belong to the nearest of the queries' anchors
    finish_steps: int = 0  # of `steps`, the last ones: the learning rate rises once more; no share counts them
    kinds_share: float = 0.0  # of the training during which only the backbone learns, to name what each cell shows
    processes: int = 2  # with one thread each: operations this small lose more by threads than they gain
    checkpoint_seconds: float = 60.0
    vary: bool = True  # crop, mirror and recolour the pictures


@dataclass(frozen=True)
class Finish:
    """The model at another image size, which takes over what was learnt (its weights are the same), and pictures."""

    model: Callable[[], Sam3Model]
    pictures: Callable[[], Pictures]


@dataclass(frozen=True)
class Start:
    """What a training starts from, made anew in each process.

    tokens: of the prompt. anchors: (queries, 2) centres of the queries' first boxes, where `plan.grid_share` is not 0.
    kinds: how many kinds of things the pictures' cells tell apart; 0 where they tell nothing. finish: what
    `plan.finish_steps` are made with instead.
    """

    model: Callable[[], Sam3Model]
    pictures: Callable[[], Pictures]
    tokens: tuple[int, ...]
    anchors: Tensor | None = None
    kinds: int = 0
    finish: Finish | None = None


def train(
    plan: TrainingPlan,
    start: Start,
    folder: Path,
    report: Callable[[str], None],
    kept: Callable[[Path, int], None] = lambda path, step: None,
) -> bool:
    """Train until the plan's last step or SIGTERM, from the state in `folder` if it has one; True when it is complete.

    `folder` then has the state (`state.pt`) and, when complete, a transformers folder. `kept` is called with the path
    of the state and the step after each write: at every `checkpoint_seconds`, on SIGTERM, before a finish, at the end.
    Raises HelperEnded where one of the other processes ended before its time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stop = _StopSignal()
    try:
        with shared(plan.processes, partial(_work, plan, start, folder, None)) as share:
            return _work(plan, start, folder, _Hooks(report, kept, stop), share)
    finally:
        stop.restore()


@dataclass(frozen=True)
class _Hooks:
    """What only the first process has."""

    report: Callable[[str], None]
    kept: Callable[[Path, int], None]
    stop: "_StopSignal"


class _StopSignal:
    """SIGTERM as a question that the loop asks after each step."""

    def __init__(self) -> None:
        self.raised = False
        self._before = signal.signal(signal.SIGTERM, self._raise)

    def _raise(self, number: int, frame: object) -> None:
        self.raised = True

    def restore(self) -> None:
        """Put back what the signal did before."""
        signal.signal(signal.SIGTERM, self._before)


def _work(plan: TrainingPlan, start: Start, folder: Path, hooks: _Hooks | None, share: Share) -> bool:
    threads = torch.get_num_threads()
    if plan.processes > 1:
        torch.set_num_threads(1)
    try:
        torch.manual_seed(plan.seed)
        run = _Run(plan, start, folder, hooks, share)
        run.resume()
        if start.finish is not None and plan.finish_steps:
            if not run.until(plan.steps - plan.finish_steps):
                return False
            run = run.finishing(start.finish)
        if complete := run.until(plan.steps):
            run.keep()
        return complete
    finally:
        torch.set_num_threads(threads)


class _Run:
    """One process's part of the training: its share of every batch, and the same weights as the others."""

    def __init__(self, plan: TrainingPlan, start: Start, folder: Path, hooks: _Hooks | None, share: Share) -> None:
        self.plan, self.start, self.folder, self.hooks, self.share = plan, start, folder, hooks, share
        self.pictures, self.anchors, self.step = start.pictures(), start.anchors, 0
        sights = [self.pictures, *([start.finish.pictures()] if start.finish else [])]
        self.seen = [[len(pictures), pictures.batch(np.zeros(1, np.int64)).images.shape[1]] for pictures in sights]
        self.device = torch.device("cuda" if torch.cuda.is_available() and plan.processes == 1 else "cpu")
        model = start.model().to(self.device)
        use_trainable_attention(model)
        self.detector = Sam3Detector(model, start.tokens).to(self.device).train()
        averaged: Sam3Model = copy.deepcopy(model).eval()
        width = int(model.config.vision_config.backbone_config.hidden_size)
        kinds = KindHead(width, start.kinds).to(self.device) if start.kinds else None
        self.parameters = [*self.detector.parameters(), *(kinds.parameters() if kinds else ())]
        optimizer = torch.optim.AdamW(_groups(self.parameters), lr=plan.learning_rate, betas=(0.9, 0.98), fused=True)
        self.trained = Trained(model, averaged, optimizer, kinds)
        main = plan.steps - plan.finish_steps
        self.whole_from = math.ceil(plan.kinds_share * main) if kinds else 0
        self.grid_until = plan.grid_share * main

    def resume(self) -> None:
        """Go on from the state in the folder, if it has one."""
        self.step = load_state(self.folder, self.trained, self.plan, self.seen)

    def finishing(self, finish: Finish) -> "_Run":
        """The same training from here on, as its finish."""
        learnt = self.trained.state()
        start = replace(self.start, model=finish.model, pictures=finish.pictures, finish=None)
        run = _Run(self.plan, start, self.folder, self.hooks, self.share)
        run.trained.load(learnt)
        run.step, run.seen = self.step, self.seen
        return run

    def until(self, last: int) -> bool:
        """Go on to the step `last`; False where a signal ended it before the plan's last step."""
        plan, started, first, saved = self.plan, time.monotonic(), self.step, time.monotonic()
        stopped = False
        while self.step < last and not stopped:
            loss, parts, stopped = self._step(self.step)
            self.step += 1
            self.trained.average(min(_AVERAGING, self.step / (self.step + 10)))
            if self.hooks is None:
                continue
            if self.step % _REPORT_STEPS == 0:
                words = " ".join(f"{name} {value:.3f}" for name, value in parts.items())
                pace = (time.monotonic() - started) / (self.step - first)
                self.hooks.report(f"step {self.step} of {plan.steps}, {pace:.3f} s/step, loss {loss:.3f}: {words}")
            if stopped or self.step == last or time.monotonic() - saved > plan.checkpoint_seconds:
                self.hooks.kept(save_state(self.folder, self.trained, plan, self.seen, self.step), self.step)
                saved = time.monotonic()
        return self.step == plan.steps or (self.step >= last and not stopped)

    def keep(self) -> None:
        """Write the averaged weights as a transformers folder."""
        if self.hooks is not None:
            self.trained.averaged.save_pretrained(self.folder)

    def _rate(self, step: int) -> float:
        """Linear warm-up, a second one where all but the backbone begins, and down a cosine to a fiftieth; then once
        more from a third, for the finish."""
        plan = self.plan
        main = plan.steps - plan.finish_steps
        starts = (0, self.whole_from, main)
        warm = min(1.0, (step - max(start for start in starts if start <= step) + 1) / max(1, plan.warm_up_steps))
        angle, peak = math.pi * step / max(1, main), plan.learning_rate
        if step >= main:
            angle, peak = math.pi * (step - main) / plan.finish_steps, plan.learning_rate / 3
        return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(angle)))

    def _step(self, step: int) -> tuple[float, dict[str, float], bool]:
        """One step of all processes; returns loss, its parts and whether the first process was told to stop."""
        for group in self.trained.optimizer.param_groups:
            group["lr"] = self._rate(step)
        pixels, truth = self._batch(step)
        loss, parts = self._loss(step, pixels, truth)
        self.trained.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        stopped = self._share_gradients(self.hooks is not None and self.hooks.stop.raised)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.trained.optimizer.step()
        return loss.item(), parts, stopped

    def _loss(self, step: int, pixels: Tensor, truth: Truth) -> tuple[Tensor, dict[str, float]]:
        plan, detector, naming = self.plan, self.detector, self.trained.kinds
        mask_rows = max(1, plan.mask_rows // plan.processes)
        with torch.autocast(self.device.type, torch.bfloat16):  # a third faster where the processor has bfloat16 units
            if naming is not None and truth.kinds is not None and step < self.whole_from:
                named = kind_loss(naming(detector.grid_features(pixels)), truth.kinds)
                return named, {"kinds": named.item()}
            sight = detector.see(pixels, mask_rows)
            found = detector.detect(sight, detector.text_features()).float()
        by_grid = self.anchors is not None and step < self.grid_until
        loss, parts = detection_loss(detector, found, truth, self.anchors if by_grid else None)
        if naming is not None and truth.kinds is not None:
            with torch.autocast(self.device.type, torch.bfloat16):
                named = kind_loss(naming(sight.grid), truth.kinds)
            loss, parts = loss + _KINDS_WEIGHT * named, parts | {"kinds": named.item()}
        return loss, parts

    def _share_gradients(self, stopped: bool) -> bool:
        if self.plan.processes == 1:
            return stopped
        parameters = [parameter for parameter in self.parameters if parameter.requires_grad]
        gradients = [parameter.grad for parameter in parameters]
        # Pictures without an instance leave the mask head without a gradient: what is sent must be of one size still.
        sent = torch.cat(
            [torch.zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, gradients, strict=True)]
            + [torch.tensor([g is not None for g in gradients] + [stopped], dtype=torch.float32)]
        )
        self.share.add_up(sent)
        values, given = sent[: -len(parameters) - 1] / self.plan.processes, sent[-len(parameters) - 1 : -1]
        pieces = values.split([parameter.numel() for parameter in parameters])
        for parameter, piece, there in zip(parameters, pieces, given.tolist(), strict=True):
            parameter.grad = piece.view_as(parameter) if there else None
        return bool(sent[-1] > 0)

    def _batch(self, step: int) -> tuple[Tensor, Truth]:
        numbers = batch_numbers(step, self.plan.batch, len(self.pictures), self.plan.seed)
        mine = numbers[self.share.number :: self.plan.processes]
        examples = self.pictures.batch(mine)
        seeds = [np.random.SeedSequence([self.plan.seed, step, row, self.share.number]) for row in range(len(mine))]
        return to_tensors(examples, seeds if self.plan.vary else None, self.device)


def batch_numbers(step: int, batch: int, pictures: int, seed: int) -> NDArray[np.int64]:
    """Which pictures step `step` sees: every picture once before any is seen again, in another order each time."""
    places = np.arange(step * batch, (step + 1) * batch)
    epochs = {int(epoch): np.random.default_rng([seed, 0xE90C, int(epoch)]) for epoch in np.unique(places // pictures)}
    orders = {epoch: random.permutation(pictures) for epoch, random in epochs.items()}
    return np.array([orders[int(place // pictures)][place % pictures] for place in places], np.int64)


def to_tensors(
    examples: Examples, seeds: list[np.random.SeedSequence] | None, device: torch.device
) -> tuple[Tensor, Truth]:
    """Pixels (B, 3, S, S) in -1..1 and the truth, varied by the dice of `seeds` if given."""
    images = np.empty(examples.images.shape, np.float32)
    boxes, masks, kinds = np.zeros_like(examples.boxes), np.zeros_like(examples.masks), np.array(examples.kinds)
    for row, count in enumerate(examples.counts):
        image, its_boxes, its_masks = examples.images[row], examples.boxes[row, :count], examples.masks[row, :count]
        if seeds is None:
            images[row], boxes[row, :count], masks[row, :count] = image / np.float32(127.5) - 1, its_boxes, its_masks
        else:
            images[row], boxes[row, :count], masks[row, :count], kinds[row] = varied(
                image, its_boxes, its_masks, kinds[row], np.random.default_rng(seeds[row])
            )
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    truth = Truth(
        torch.from_numpy(boxes).to(device),
        torch.from_numpy(masks).to(device).float() / 255,
        [int(count) for count in examples.counts],
        torch.from_numpy(kinds).long().to(device),
    )
    return pixels, truth


def _groups(parameters: list[Tensor]) -> list[dict[str, object]]:
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}]

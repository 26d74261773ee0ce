"""Owns what a training is between two steps, and its file: weights, averaged weights, optimizer, dice, step."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.models.sam3.modeling_sam3 import Sam3Model

STATE = "state.pt"
# What may differ between an interrupted training and its continuation without changing what is computed.
_FREE = frozenset({"checkpoint_seconds"})


class StateError(Exception):
    """A training can't be continued from this state; the message says why and what to do."""


@dataclass(frozen=True)
class Trained:
    """The model in training, its running average, the head that names kinds if there is one, and the optimizer."""

    model: Sam3Model
    averaged: Sam3Model
    optimizer: torch.optim.Optimizer
    kinds: torch.nn.Module | None = None

    def average(self, decay: float) -> None:
        """Move the averaged weights by 1 - `decay` of the way to the model's."""
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay)

    def state(self) -> dict[str, Any]:
        """All of it and torch's dice, as `load` takes it."""
        return {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "kinds": {} if self.kinds is None else self.kinds.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Become what `state` is of: the same architecture; its image size may be another."""
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        if self.kinds is not None:
            self.kinds.load_state_dict(state["kinds"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])


def save_state(folder: Path, trained: Trained, plan: Any, pictures: list[list[int]], step: int) -> Path:
    """Write the state after `step` steps, whole or not at all, and return its path.

    pictures: how many there are and their size in pixels, and the same of those for the finish if there are any.
    """
    path, fresh = folder / STATE, folder / f"{STATE}.new"
    state = {"step": step, "plan": asdict(plan), "pictures": pictures, **trained.state()}
    with fresh.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return path


def load_state(folder: Path, trained: Trained, plan: Any, pictures: list[list[int]]) -> int:
    """Put the state in `folder` into `trained` and return its step; 0 where there is none.

    Raises StateError for a state of another plan, or of pictures of other numbers or sizes.
    """
    path = folder / STATE
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    changed = {
        name: (value, asdict(plan).get(name))
        for name, value in state["plan"].items()
        if name not in _FREE and asdict(plan).get(name) != value
    }
    number = pictures[0][0] if len(pictures) == 1 else None  # what older states have, which knew no finish and no size
    if state["pictures"] not in (pictures, number):
        changed["pictures"] = (state["pictures"], pictures)
    if changed:
        told = ", ".join(f"{name} {before} became {now}" for name, (before, now) in changed.items())
        raise StateError(f"{path} is of another training: {told}; use another folder, or the same settings")
    trained.load(state)
    return int(state["step"])

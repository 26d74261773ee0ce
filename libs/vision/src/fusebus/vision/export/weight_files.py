"""Owns reading weights out of files of unknown origin: by content, never by name, and never running what is in them."""

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fusebus.vision.export.errors import CheckpointError

_MAX_HEADER_BYTES = 100_000_000  # of a safetensors file: the format's own limit
_FILES_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
_HOLDERS = (
    "model",
    "state_dict",
    "ema",
    "model_state_dict",
    "ema_state_dict",
    "model_ema",
    "ema_model",
    "averaged",
    "module",
)
"""Under these names training scripts keep weights beside the optimizer's state."""
_DEPTH = 3  # such dictionaries inside one another


def read_file(path: Path, weights: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The tensors in one file and what form it has; `weights` names which of several sets in it to take.

    Raises CheckpointError: empty, cut short, of no known form, a pickle with code, no or several sets of weights.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    with path.open("rb") as stream:
        start = stream.read(32)
    size = path.stat().st_size
    if not start:
        raise CheckpointError(f"{path}: the file is empty; copy it anew")
    if start.startswith(b"PK\x03\x04") or start[:1] == b"\x80":
        return _unwrapped(path, _read_pickle(path, zipped=start[:2] == b"PK"), weights)
    if start[8:9] == b"{" and size >= 8 and struct.unpack("<Q", start[:8])[0] <= _MAX_HEADER_BYTES:
        return _read_safetensors(path), "safetensors"
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`")
    raise CheckpointError(
        f"{path}: neither a PyTorch checkpoint nor safetensors (it begins with {start!r}); give the file that the "
        "training wrote"
    )


def read_folder(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a transformers folder, from one file or from the parts that its index lists."""
    for name in _FILES_IN_FOLDER:
        if (folder / name).is_file():
            return read_file(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = weight_files(folder)
            state: dict[str, Tensor] = {}
            for part in parts:
                state |= read_file(part)[0]
            return state, f"{len(parts)} parts"
    raise CheckpointError(f"{folder}: a config.json but no {' or '.join(_FILES_IN_FOLDER)}; copy the folder whole")


def weight_files(folder: Path) -> list[Path]:
    """The files with weights of a transformers folder, in order. Raises CheckpointError for an index that lies."""
    for name in _FILES_IN_FOLDER:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise CheckpointError(f"{index}: no index of weights ({error}); copy the folder anew") from error
            if any(not isinstance(part, str) or Path(part).name != part for part in parts):
                raise CheckpointError(f"{index}: names files outside its folder; that is no folder to trust")
            return [folder / part for part in parts]
    return []


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: broken safetensors, probably cut short ({error}); copy it anew") from error


def _read_pickle(path: Path, zipped: bool) -> Any:
    if zipped and not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: cut short ({path.stat().st_size} bytes, the archive's end is missing); copy it anew"
        )
    try:
        # weights_only: tensors, numbers, texts and containers of them; anything else in the pickle is refused, not run.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_why_refused(path, str(error))) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, TypeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path}: a TorchScript archive, which is a program; give the checkpoint with the state_dict instead"
            ) from error
        raise CheckpointError(f"{path}: broken, probably cut short ({text}); copy it anew") from error


def _why_refused(path: Path, text: str) -> str:
    found = re.search(r"GLOBAL (\S+)", text)
    if found is None:
        return f"{path}: broken, or no PyTorch checkpoint ({text.splitlines()[-1][:200]}); copy it anew"
    return (
        f"{path}: the pickle calls {found[1]}: it holds code, not only weights, and was not run. If it is your own "
        "training's, save the weights alone there: torch.save({'model': model.state_dict()}, 'weights.pth')"
    )


def _unwrapped(path: Path, found: Any, weights: str | None) -> tuple[dict[str, Tensor], str]:
    """The dictionary of tensors inside what a training script saved, and the names it lay under."""
    way: list[str] = []
    for _ in range(_DEPTH + 1):
        if not isinstance(found, Mapping):
            raise CheckpointError(f"{path}: holds a {type(found).__name__}, not a dictionary of weights")
        name = _holder(path, found, weights if not way else None)
        if name is None:
            return _tensors(found), f"PyTorch{''.join(f' [{step!r}]' for step in way)}"
        way.append(name)
        found = found[name]
    raise CheckpointError(f"{path}: no weights under {' → '.join(way)}")


def _holder(path: Path, found: Mapping[str, Any], weights: str | None) -> str | None:
    """Under which name the weights lie; None where `found` is the weights."""
    if weights is not None:
        if not isinstance(found.get(weights), Mapping):
            raise CheckpointError(f"{path}: has no {weights!r}, it has {_listed(found)}")
        return weights
    there = [name for name in _HOLDERS if isinstance(found.get(name), Mapping)]
    if len(there) > 1:
        raise CheckpointError(
            f"{path}: has several sets of weights ({', '.join(there)}); say which with --weights {there[0]}"
        )
    if not there and not _tensors(found):
        raise CheckpointError(f"{path}: no weights in it; it has {_listed(found)}")
    return there[0] if there else None


def _tensors(found: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}


def _listed(found: Mapping[Any, Any]) -> str:
    names = [str(name) for name in found]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"

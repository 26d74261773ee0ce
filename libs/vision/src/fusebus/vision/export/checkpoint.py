"""Owns the recognition of a user's checkpoint: which form of SAM 3 it is, whether it is whole, the model made of it."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model
from transformers.utils import logging as transformers_logging

from fusebus.vision.export import native
from fusebus.vision.export.errors import CheckpointError
from fusebus.vision.export.weight_files import read_file, read_folder, weight_files

_MAX_IMAGE_SIZE = 4096  # pixels; what a manifest takes
_NAMED = 8  # keys that an error lists; the others are counted
_ALIGNMENT = 64  # bytes, of what torch allocates for the CPU
_WRAPPERS = re.compile(r"(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")  # torch.compile, FSDP
_COMMON_PREFIXES = ("module.", "model.", "sam3_model.")  # data-parallel and training frameworks put them on every key
_LORA = re.compile(r"(?:^|\.)(?:lora_\w+|base_layer|modules_to_save)\.|\.lora_|^base_model\.model\.")
_NO_MASK_HEAD = (
    "no mask head ({missing} is missing): fine-tuning facebookresearch/sam3 leaves segmentation off by default, and "
    "such a model finds boxes only. Train with the segmentation head enabled (enable_segmentation: true in the "
    "training's configuration, with masks in the data), and export that checkpoint"
)


@dataclass(frozen=True)
class Checkpoint:
    """A user's model, ready for inference.

    recognised: a line for people. kind: which of the known forms, in a few words. sha256: of the file, or of the list
    of a folder's files with their digests. folder: where tokenizer files may lie.
    """

    model: Sam3Model
    recognised: str
    kind: str
    sha256: str
    name: str
    folder: Path | None


def load_checkpoint(
    path: Path, config: Path | None = None, weights: str | None = None, image_size: int | None = None
) -> Checkpoint:
    """Recognise and load the checkpoint at `path`, a file or a transformers folder; in float32.

    `config` is the config.json of an architecture that the file does not tell (default: one beside a file in
    transformers' names, else the released SAM 3); `weights` says which of several sets in a file to take; `image_size`
    is the edge in pixels to see at, where not the checkpoint's own. Raises CheckpointError with what is wrong and what
    to do.
    """
    if path.is_dir():
        return _from_folder(path, config, image_size)
    state, form = read_file(path, weights)
    beside = path.parent / "config.json"
    place = config or (beside if beside.is_file() and _is_ours(state) else None)
    architecture = _sized(Sam3Config() if place is None else _read_config(place), image_size)
    model, words = _build(path, state, architecture)
    kind = f"{words.kind} in {form}"
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Checkpoint(model, f"{path.name}: {kind}, {words.told}", kind, digest, path.name, path.parent)


def _from_folder(folder: Path, config: Path | None, image_size: int | None) -> Checkpoint:
    names = {entry.name for entry in folder.iterdir()}
    if not names:
        raise CheckpointError(f"{folder}: the folder is empty; give the one that save_pretrained wrote, or a file")
    if names & {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"}:
        raise CheckpointError(f"{folder}: {_lora_reason()}")
    if config is None and "config.json" not in names:
        files = sorted(name for name in names if Path(name).suffix in {".pt", ".pth", ".safetensors"})
        way_out = f"; give the file itself: {folder / files[0]}" if files else "; it is no transformers folder"
        raise CheckpointError(f"{folder}: has no config.json{way_out}")
    architecture = _sized(_read_config(config or folder / "config.json"), image_size)
    state, form = read_folder(folder)
    model, words = _build(folder, state, architecture)
    kind = f"transformers folder, {form}"
    digest = _folder_digest([*weight_files(folder), config or folder / "config.json"])
    return Checkpoint(model, f"{folder.name}: {kind}, {words.told}", kind, digest, folder.resolve().name, folder)


def _read_config(path: Path) -> Sam3Config:
    """Raises CheckpointError for a file that is no SAM 3 configuration."""
    try:
        found = json.loads(path.read_text())
        model_type = found.get("model_type")
        if model_type == "sam3_video":  # the released folder holds detector and tracker
            found = found["detector_config"]
        elif model_type != "sam3":
            raise CheckpointError(f"{path}: describes a model of type {model_type!r}, not 'sam3'")
        return Sam3Config.from_dict(found)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no configuration that can be read: {error}") from error


def _sized(config: Sam3Config, image_size: int | None) -> Sam3Config:
    """The same architecture for pictures of another size: its positions are made for any number of patches."""
    if image_size is None:
        return config
    patch = config.vision_config.backbone_config.patch_size
    if image_size % patch or not patch <= image_size <= _MAX_IMAGE_SIZE:
        raise CheckpointError(
            f"image size {image_size}: must be a multiple of {patch}, the edge of a patch, up to {_MAX_IMAGE_SIZE}; "
            f"the nearest is {max(1, round(image_size / patch)) * patch}"
        )
    config.image_size = image_size
    return config


@dataclass(frozen=True)
class _Words:
    kind: str
    told: str


@dataclass(frozen=True)
class _Renamed:
    """Weights by transformers' names; `native_names` says which key of the file each came from, where that differs."""

    state: dict[str, Tensor]
    native_names: Mapping[str, str]
    unknown: tuple[str, ...]
    words: _Words


def _build(path: Path, state: dict[str, Tensor], config: Sam3Config) -> tuple[Sam3Model, _Words]:
    """The model of these weights, after every key and size was compared with what the architecture needs."""
    cleaned = _without_wrappers(state)
    if any(_LORA.search(key) for key in cleaned):
        raise CheckpointError(f"{path}: {_lora_reason()}")
    renamed = _recognised(path, cleaned)
    if renamed.native_names:
        config.vision_config.backbone_config.layer_norm_eps = native.VISION_LAYER_NORM_EPS
    _check(path, renamed, config)
    transformers_logging.disable_progress_bar()
    # Builds without initialising, and computes what is not kept in files (rotary frequencies, positions).
    model = Sam3Model.from_pretrained(None, config=config, state_dict=renamed.state, dtype=torch.float32)
    _align(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = model.config.vision_config.backbone_config.image_size
    told = f"{renamed.words.told}; {parameters / 1e6:,.1f} million parameters, pictures of {size} pixels"
    return model.eval(), _Words(renamed.words.kind, told)


def _align(model: Sam3Model) -> None:
    """Weights as torch itself allocates them: of those that lie in a file's bytes, at any address, some processors sum
    the products in another order, and the last bits differ.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()


def _recognised(path: Path, state: dict[str, Tensor]) -> _Renamed:
    if any(key.startswith("detector.") for key in state):
        return _native(path, *_divided(state, "detector.", ("tracker.",)), "native released")
    if any(key.startswith(native.MARK) for key in state):
        return _native(path, *_divided(state, "", ("tracker.",)), "native trainer")
    if any(key.startswith("detector_model.") for key in state):
        ours, others, unknown = _divided(state, "detector_model.", ("tracker_model.", "tracker_neck."))
        return _transformers(path, ours, others, unknown)
    if _is_ours(state):
        return _transformers(path, state, 0, ())
    raise CheckpointError(
        f"{path}: not SAM 3 in any form known here: no key begins with detector., backbone.vision_backbone. or "
        f"vision_encoder.; it has {_listed(state)}"
    )


def _native(path: Path, state: dict[str, Tensor], others: int, unknown: tuple[str, ...], kind: str) -> _Renamed:
    if not any(key.startswith(native.MASK_HEAD) for key in state):
        raise CheckpointError(f"{path}: {kind} checkpoint with {_NO_MASK_HEAD.format(missing=native.MASK_HEAD + '*')}")
    found = native.translate(state)
    others += len(found.tracker)
    left_out = f", {len(found.dropped)} left out that nothing needs" if found.dropped else ""
    told = f"{len(state) - len(found.tracker)} keys{left_out}{_told_tracker(others)}"
    return _Renamed(found.state, found.names, (*unknown, *found.unknown), _Words(kind, told))


def _transformers(path: Path, state: dict[str, Tensor], others: int, unknown: tuple[str, ...]) -> _Renamed:
    if not any(key.startswith("mask_decoder.") for key in state):
        raise CheckpointError(f"{path}: {_NO_MASK_HEAD.format(missing='mask_decoder.*')}")
    told = f"{len(state)} keys{_told_tracker(others)}"
    return _Renamed(state, {}, unknown, _Words("transformers weights", told))


def _check(path: Path, renamed: _Renamed, config: Sam3Config) -> None:
    with torch.device("meta"):
        needed = {key: tuple(value.shape) for key, value in Sam3Model(config).state_dict().items()}
    in_file = renamed.native_names.get
    missing = sorted(set(needed) - set(renamed.state))
    unexpected = sorted({in_file(key, key) for key in set(renamed.state) - set(needed)} | set(renamed.unknown))
    sizes = [
        f"{in_file(key, key)} gives {key} {tuple(value.shape)}, needed is {needed[key]}"
        for key, value in renamed.state.items()
        if key in needed and tuple(value.shape) != needed[key]
    ]
    broken = [in_file(key, key) for key, value in renamed.state.items() if not _finite(value)]
    reasons = [
        f"{len(found)} {what}: {_listed(found)}"
        for what, found in (
            ("keys are missing (by transformers' names)", missing),
            ("keys are unexpected", unexpected),
            ("weights have another size", sizes),
            ("weights hold values that are no numbers", broken),
        )
        if found
    ]
    if reasons:
        way_out = "" if not sizes else "; an architecture of other sizes needs its config.json: --config FILE"
        raise CheckpointError(f"{path}: {'. '.join(reasons)}{way_out}")


def _without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys without what torch.compile, data-parallel training and averaging put around them."""
    cleaned = {_WRAPPERS.sub("", key): value for key, value in state.items() if key != "n_averaged"}
    while prefix := next((one for one in _COMMON_PREFIXES if cleaned and _all_begin(cleaned, one)), None):
        cleaned = {key.removeprefix(prefix): value for key, value in cleaned.items()}
    return cleaned


def _divided(
    state: Mapping[str, Tensor], prefix: str, others: tuple[str, ...]
) -> tuple[dict[str, Tensor], int, tuple[str, ...]]:
    """Keys with `prefix`, without it; the number of those of the click and video model; all that remain."""
    ignored = [key for key in state if key.startswith(others)]
    ours = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix) and not key.startswith(others)
    }
    rest = tuple(key for key in state if not key.startswith(prefix) and not key.startswith(others))
    return ours, len(ignored), rest


def _is_ours(state: Iterable[str]) -> bool:
    return any("vision_encoder.backbone." in key for key in state)


def _all_begin(state: Iterable[str], prefix: str) -> bool:
    return all(key.startswith(prefix) for key in state)


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _told_tracker(number: int) -> str:
    return f", {number} of the tracker ignored" if number else ""


def _lora_reason() -> str:
    return (
        "LoRA weights: a change to a model, not a model. Merge them into the base model where they were trained "
        "(merge_and_unload), save that, and export it"
    )


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _folder_digest(files: Iterable[Path]) -> str:
    """SHA-256 of what `sha256sum` prints of the files."""
    lines = []
    for path in sorted(files, key=lambda one: one.name):
        with path.open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {path.name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()

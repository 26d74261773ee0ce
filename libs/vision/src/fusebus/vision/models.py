"""Loads a model folder's manifest and proves that the model file is the one it describes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
DEMO_MODEL = Path(__file__).parent / "models" / "fuse-neutral-demo"
"""The folder of the small model that comes with this package."""


class ModelError(Exception):
    """The model folder is incomplete, altered or of another kind; the text names file and way out."""


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What manifest.json says of a model; it may say more, which is for people."""

    format_version: int
    name: str
    version: str
    """Part of every analysis id: another version gives new analyses."""
    file: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
    """The ONNX graph's file name in the folder."""
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    prompts: tuple[str, ...]
    """What it looks for; the first is the label of detections."""
    image_size: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    """Edge of the square input in pixels."""
    mask_size: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    """Edge of the square masks in cells."""
    top_k: Annotated[int, msgspec.Meta(ge=1)]
    score_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)]
    nms_iou: Annotated[float, msgspec.Meta(ge=0, le=1)]

    @property
    def label(self) -> str:
        """What a detection is called."""
        return self.prompts[0] if self.prompts else self.name


def load_manifest(folder: Path) -> ModelManifest:
    """The manifest in `folder`, after the model file's SHA-256 was compared with it (1 s for 2 GB).

    Raises ModelError: no manifest, unreadable, another format version, or a model file that is missing or differs, is
    a link, or has a second name through which it could be altered.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=ModelManifest)
    except OSError as error:
        raise ModelError(f"no model: {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{path}: {error}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise ModelError(f"{path}: format_version {manifest.format_version}, this release reads {FORMAT_VERSION}")
    _verify(folder / manifest.file, manifest.sha256)
    return manifest


def _verify(file: Path, sha256: str) -> None:
    if not file.is_file() or file.is_symlink():
        raise ModelError(f"{file}: no such regular file")
    if file.stat().st_nlink != 1:
        raise ModelError(f"{file}: has {file.stat().st_nlink} hard links, a model file must have one name only")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise ModelError(f"{file}: has SHA-256 {found}, its manifest says {sha256}")

"""Loads a model folder's manifest and proves that its files are exactly those that it describes."""

from __future__ import annotations

import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 2
MAX_MANIFEST_BYTES = 1_000_000
MAX_FILES = 64
"""A graph and its external data: exporters write one or two files."""
FOR_PEOPLE = frozenset({".md", ".txt"})
"""Suffixes of unlisted files that may lie beside a model; no other may, so that no graph can find one to read."""

# \Z, not $: that also matches before a newline at the end.
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?\Z", max_length=128)]
"""A plain name in the folder: never a path, never `..`, and a name that blob storage takes."""
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z", max_length=64)]
"""Of a model or a version: a part of paths and blob names."""
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Share = Annotated[float, Meta(ge=0, le=1)]
Edge = Annotated[int, Meta(ge=1, le=4096)]


class ModelError(Exception):
    """The model is incomplete, altered, dangerous or of another kind; the text names file, reason and way out."""


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the model as it was exported."""

    sha256: Digest
    bytes: Annotated[int, Meta(ge=0)]


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint that a model was exported from."""

    kind: str
    """Which of the known forms it had, for example `native trainer .pth`."""
    sha256: Digest
    name: str


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What manifest.json says of a model; it may say more, which is for people.

    The graph's input is `images`, uint8 (batch, S, S, 3) RGB; its outputs are `scores` float32 (batch, K) falling,
    `boxes` float32 (batch, K, 4) as shares x0 y0 x1 y1, `masks` uint8 (batch, K, M, M) probability × 255, and
    `classes` int64 (batch, K), indices of `prompts`.
    """

    format_version: int
    name: Name
    version: Name
    files: Annotated[dict[FileName, ModelFile], Meta(min_length=1, max_length=MAX_FILES)]
    """The graph and its external data: everything that may be read to run the model."""
    file: FileName
    """Which of `files` is the ONNX graph."""
    prompts: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1)]
    """What it looks for: class i is called `prompts[i]`."""
    image_size: Edge
    """S: edge of the square input in pixels."""
    mask_size: Edge
    """M: edge of the square masks in cells."""
    top_k: Annotated[int, Meta(ge=1, le=4096)]
    """K: detections that the graph gives for each picture, most of them below the threshold."""
    score_thresholds: tuple[Share, ...]
    """Least score of each class, in the order of `prompts`."""
    nms_iou: Share
    """Two boxes of a class that overlap more (intersection over union) are the same thing."""
    precision: Literal["fp32", "fp16"]
    opset: Annotated[int, Meta(ge=1)]
    source: ModelSource | None = None
    """None for a model that was trained and exported in one go."""
    libraries: dict[str, str] = {}
    """Versions of what exported it."""
    parity: dict[str, Any] = {}
    """How far the graph's outputs lie from the original's, as the export measured it."""
    measured: dict[str, Any] | None = None
    """Quality figures, with the command that gave them."""

    def __post_init__(self) -> None:
        if self.file not in self.files:
            raise ValueError(f"`file` is {self.file!r}, which `files` doesn't list")
        if MANIFEST_NAME in self.files:
            raise ValueError(f"`files` lists {MANIFEST_NAME}, which can't hold its own digest")
        if len(self.score_thresholds) != len(self.prompts):
            raise ValueError(f"{len(self.score_thresholds)} `score_thresholds` for {len(self.prompts)} `prompts`")

    @property
    def ref(self) -> str:
        """`name@version`: what people and the registry call it."""
        return f"{self.name}@{self.version}"

    @property
    def sha256(self) -> str:
        """One digest of the whole model: its only file's, or that of what `sha256sum *` prints of several."""
        if len(self.files) == 1:
            return self.files[self.file].sha256
        listing = "".join(f"{found.sha256}  {name}\n" for name, found in sorted(self.files.items()))
        return hashlib.sha256(listing.encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        """Of all its files."""
        return sum(found.bytes for found in self.files.values())


def load_manifest(folder: Path) -> ModelManifest:
    """The manifest in `folder`, after every file was compared with it (about 1 s for 2 GB).

    Raises ModelError: no manifest, unreadable, another format version; or a file that is missing, differs in size or
    SHA-256, is a link, has a second name through which it could be altered, or is not listed.
    """
    manifest = read_manifest(folder)
    for name, expected in sorted(manifest.files.items()):
        _verify(folder / name, expected)
    _refuse_unlisted(folder, manifest)
    return manifest


def read_manifest(folder: Path) -> ModelManifest:
    """The manifest in `folder`; the files it lists are not looked at. Raises ModelError."""
    path = folder / MANIFEST_NAME
    with open_regular(path) as stream:
        return decode_manifest(stream.read(MAX_MANIFEST_BYTES + 1), str(path))


def decode_manifest(data: bytes, where: str) -> ModelManifest:
    """A manifest from its bytes; `where` names it in the text of errors. Raises ModelError."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ModelError(f"{where}: more than {MAX_MANIFEST_BYTES} bytes; that is no manifest")
    try:
        version = msgspec.json.decode(data, type=_Version).format_version
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{where}: format_version {version}, this release reads {FORMAT_VERSION}; export the model anew"
            )
        return msgspec.json.decode(data, type=ModelManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{where}: {error}; export the model anew") from error


def write_manifest(folder: Path, manifest: ModelManifest) -> Path:
    """Write manifest.json into `folder`, whole or not at all; its path."""
    path = folder / MANIFEST_NAME
    partial = folder / f".{MANIFEST_NAME}.partial"
    partial.write_bytes(encode_manifest(manifest))
    return partial.replace(path)


def encode_manifest(manifest: ModelManifest) -> bytes:
    """The same bytes for the same manifest, laid out for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def describe_file(path: Path) -> ModelFile:
    """Size and SHA-256 of a file, for the manifest of the model it belongs to. Raises ModelError."""
    with open_regular(path) as stream:
        return ModelFile(
            sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=os.fstat(stream.fileno()).st_size
        )


class _Version(msgspec.Struct, frozen=True):
    format_version: int


def _verify(path: Path, expected: ModelFile) -> None:
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size != expected.bytes:
            raise ModelError(f"{path}: has {size} bytes, its manifest says {expected.bytes}; fetch the model anew")
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected.sha256:
        raise ModelError(f"{path}: has SHA-256 {found}, its manifest says {expected.sha256}; fetch the model anew")


def open_regular(path: Path) -> BufferedReader:
    """Open without following a link, and look at what was opened: nobody can swap it in between. Raises ModelError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such regular file; a model is a folder with {MANIFEST_NAME}") from error
    except OSError as error:
        raise ModelError(f"{path}: no such regular file, or a link ({error.strerror}); put the file itself") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        reason = "no such regular file: it is a folder or a device"
    elif facts.st_nlink != 1:
        reason = f"has {facts.st_nlink} hard links, a model file must have one name only; copy it"
    else:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ModelError(f"{path}: {reason}")


def _refuse_unlisted(folder: Path, manifest: ModelManifest) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.name == MANIFEST_NAME or entry.name in manifest.files:
            continue
        if entry.suffix in FOR_PEOPLE and entry.is_file() and not entry.is_symlink():
            continue
        raise ModelError(f"{entry}: lies beside the model, and its manifest doesn't list it; move it elsewhere")

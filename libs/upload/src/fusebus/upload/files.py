"""Which files of a folder are sent, under which names, and which names no blob can have."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_NAME = 1024  # characters of a blob's name
MAX_SEGMENTS = 254  # parts between slashes
UNFIT_CATEGORIES = ("Cc", "Cs")
"""Unicode categories: control characters, and bytes of a file name that are no text."""
NO_CHARACTERS = "\ufffe\uffff"


@dataclass(frozen=True)
class LocalFile:
    """A file and the name it gets; `unfit` says why it can't be sent, empty where it can."""

    path: Path
    name: str
    """Its path below the folder, with forward slashes, exactly as the file system has it."""
    size: int
    """Bytes."""
    unfit: str = ""


def files_in(folder: Path, prefix: str = "") -> list[LocalFile]:
    """Every file below `folder`, hidden ones left out, sorted by name; links are named but not followed.

    Raises OSError for a folder that can't be read: what is in it would be missing without a word.
    """
    return sorted(_walk(folder, prefix), key=lambda file: file.name)


def unfit_name(name: str) -> str:
    """Why no blob can be called so, for the person who can rename the file; empty where one can.

    Azure documents these limits. Azurite lets control characters in, and then can list nothing of that container.
    """
    if any(unicodedata.category(character) in UNFIT_CATEGORIES or character in NO_CHARACTERS for character in name):
        return "its name holds control characters or broken text: rename it"
    if len(name) > MAX_NAME or name.count("/") >= MAX_SEGMENTS:
        return f"its path is longer than {MAX_NAME} characters or {MAX_SEGMENTS} parts: rename it"
    if name.endswith((".", "/")):
        return "its name ends with a dot: rename it"
    if "\\" in name:
        return "its name holds a backslash, which storage would turn into a folder: rename it"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "a part of its path is empty or only dots: rename it"
    return ""


def _walk(folder: Path, prefix: str) -> Iterator[LocalFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                yield LocalFile(Path(entry.path), name, 0, "it is a link to another place: copy the file itself here")
            elif entry.is_dir():
                yield from _walk(Path(entry.path), name + "/")
            elif entry.is_file():
                yield LocalFile(Path(entry.path), name, entry.stat().st_size, unfit_name(name))
            else:
                yield LocalFile(Path(entry.path), name, 0, "it is no ordinary file")

"""Which files of a folder are sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class NothingToSend(Exception):
    """The folder is missing, is no folder, or has no files; the text says which."""


@dataclass(frozen=True)
class Photo:
    """A file and the blob name it gets: its path below the folder, with forward slashes."""

    path: Path
    name: str
    size: int
    """Bytes."""


def photos_in(folder: Path) -> list[Photo]:
    """Every file below `folder`, hidden ones left out, sorted by name. Raises NothingToSend."""
    if not folder.exists():
        raise NothingToSend(f"{folder} does not exist; name the folder that holds the photos")
    if not folder.is_dir():
        raise NothingToSend(f"{folder} is not a folder; name the folder that holds the photos")
    found = [
        Photo(path, path.relative_to(folder).as_posix(), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise NothingToSend(f"{folder} holds no files; put photos into it, folders below are read too")
    return found

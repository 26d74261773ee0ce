"""Which files are taken, and what they are called at the destination. Names are data: none leaves its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from fusebus.contracts import display
from fusebus.convert.errors import Reason, Unconvertible

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".dib", ""}
)
"""Files without a suffix are taken too; whatever else lies there is left alone."""
LONGEST_PART = 200  # bytes of one part of a path: file systems end at 255, and a suffix is still to come


def is_picture(name: str) -> bool:
    """Whether the name is one of a picture; hidden files and folders are not."""
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES and not is_hidden(name)


def is_hidden(name: str) -> bool:
    """Whether the file, or a folder that it lies in, has a dot ahead of its name."""
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def printable(name: str) -> str:
    """The name with what is no Unicode, as of a file named in another encoding, escaped: it can be kept and shown."""
    return name.encode("utf-8", "backslashreplace").decode()


def destination_names(
    sources: Iterable[str], suffix: str, recorded: Mapping[str, str] | None = None
) -> dict[str, str | Unconvertible]:
    """`a/b.jpg` becomes `a/b.png`; where two would meet (`b.jpg`, `b.tif`), both keep their suffix: `b.jpg.png`.

    `recorded` are the names that pictures have at the destination already, those that are gone from the source too:
    they stay theirs, and who comes later and would meet one keeps its suffix. What can't be a file's name, or would
    still meet another, is an Unconvertible. The order of names plays no part.
    """
    plain = {name: _with_suffix(name, suffix) for name in sources}
    meets = Counter(found.casefold() for found in plain.values())
    held = _held(recorded or {}, suffix)
    held_by_some = {found.casefold() for found in held.values()}

    def chosen(name: str, found: str) -> str:
        several = meets[found.casefold()] > 1 and not name.endswith(suffix)
        return name + suffix if several or found.casefold() in held_by_some else found

    new = {name: chosen(name, found) for name, found in plain.items() if name not in held}
    taken = Counter(found.casefold() for found in (*new.values(), *held.values()))
    names = {name: held[name] if name in held else new[name] for name in plain}
    return {name: _checked(name, found, taken[found.casefold()], name in held) for name, found in names.items()}


def _held(recorded: Mapping[str, str], suffix: str) -> dict[str, str]:
    """What each keeps: of the other format's `b.webp` the `b`. Of a record no more is believed than which of its two
    names a picture has."""
    kept = {name: found.rpartition(".")[0] + suffix for name, found in recorded.items()}
    kept = {name: found for name, found in kept.items() if found in (_with_suffix(name, suffix), name + suffix)}
    several = Counter(found.casefold() for found in kept.values())
    return {name: found for name, found in kept.items() if several[found.casefold()] == 1}


def _with_suffix(name: str, suffix: str) -> str:
    stem, dot, old = name.rpartition(".")
    return stem + suffix if dot and "/" not in old and f".{old.lower()}" in PICTURE_SUFFIXES else name + suffix


def _checked(name: str, found: str, count: int, held: bool) -> str | Unconvertible:
    if problem := _problem(name):
        return Unconvertible(Reason.NAME, problem)
    if count > 1 and not held:
        return Unconvertible(Reason.NAME_TAKEN, f"another source becomes {display.name(found)} too; rename one")
    return found


def _problem(name: str) -> str:
    """Why the name can't be a path below a folder; empty where it can."""
    try:
        parts = [part.encode() for part in name.split("/")]
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if any(part in (b"", b".", b"..") for part in parts):
        return "its name has empty or dotted parts"
    if "\\" in name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "its name has a backslash or control characters"
    if any(len(part) > LONGEST_PART for part in parts):
        return f"its name has a part of more than {LONGEST_PART} bytes"
    return ""

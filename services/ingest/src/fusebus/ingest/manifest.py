"""Reads a manifest: the file in which a supplier lists what a delivery holds. Its bytes and names are hostile."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from fusebus.contracts import display
from fusebus.ledger import ManifestFacts
from fusebus.validation.heif import is_heif
from fusebus.vision import ImageError, NotAnImage, inspect

MAX_BYTES = 4_000_000
MAX_FILES = 20_000
MAX_NAME = 1024
"""Characters; storage admits no more in a blob's name, the folder included."""
SHOWN = 60  # characters of a bad name that its supplier is told

_FILE_NAME = re.compile(r"manifest(-[a-z0-9._-]{1,40})?\.(?P<kind>json|csv)")
_HEADINGS = frozenset({"name", "file", "filename", "file name", "path"})
_DELIMITERS = ",;\t"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Refusal(StrEnum):
    """Why a manifest is not taken; the photos are, whatever becomes of it."""

    TOO_LARGE = "manifest_too_large"
    TOO_MANY_FILES = "manifest_too_many_files"
    WRONG_ENCODING = "manifest_wrong_encoding"
    MALFORMED = "manifest_malformed"
    NO_NAMES = "manifest_no_names"
    BAD_NAME = "manifest_bad_name"
    REPEATED_NAME = "manifest_repeated_name"
    UNREADABLE = "manifest_unreadable"
    """The blob itself: of a wrong type, gone or replaced before it was read."""


EXPLANATIONS: dict[Refusal, str] = {
    Refusal.TOO_LARGE: f"The list of files is larger than {MAX_BYTES // 1_000_000} MB",
    Refusal.TOO_MANY_FILES: f"The list names more than {MAX_FILES:,} files: split the delivery",
    Refusal.WRONG_ENCODING: "The list of files is not UTF-8 text (in a spreadsheet: save as CSV UTF-8)",
    Refusal.MALFORMED: 'The list of files can\'t be read: JSON must be {"files": ["a.jpg", …]}, CSV one file a line',
    Refusal.NO_NAMES: "The list names no files: CSV needs a column `name`, or nothing but names",
    Refusal.BAD_NAME: "The list holds a name that no file here can have: names are as they were uploaded, "
    "below the list's own folder, with / between folders",
    Refusal.REPEATED_NAME: "The list names a file more than once",
    Refusal.UNREADABLE: "The list of files was gone or replaced before it could be read, or is no ordinary file",
}
"""What is wrong; `refused` adds where, and the way out."""
WAY_OUT = "Your photos are taken all the same. Upload a corrected list under another name, such as {other}."


class BadManifest(Exception):
    """It is not taken; `where` says at which entry, for people."""

    def __init__(self, refusal: Refusal, where: str = "") -> None:
        super().__init__(f"{refusal.value} {where}".strip())
        self.refusal = refusal
        self.where = where


class _Entry(msgspec.Struct):
    name: str


class _Listing(msgspec.Struct):
    files: list[str | _Entry]


_json = msgspec.json.Decoder(_Listing | list[str | _Entry])


class ListedNames(msgspec.Struct, frozen=True, kw_only=True):
    """Our own form of a manifest's list."""

    names: tuple[str, ...]
    """Full blob names, as they are expected in the supplier's container."""


def is_manifest(blob_name: str) -> bool:
    """Whether a file is called like a manifest: `manifest.json`, `manifest.csv` or `manifest-….json`, in any folder."""
    return _FILE_NAME.fullmatch(_last(blob_name).lower()) is not None


def is_picture(data: bytes) -> bool:
    """Whether these bytes are those of a picture, whatever the file is called."""
    try:
        inspect(data)
    except NotAnImage:
        return is_heif(data)
    except ImageError:
        return True
    return True


def read_manifest(blob_name: str, data: bytes) -> ListedNames:
    """What the manifest lists. Raises BadManifest."""
    if len(data) > MAX_BYTES:
        raise BadManifest(Refusal.TOO_LARGE)
    found = _FILE_NAME.fullmatch(_last(blob_name).lower())
    text = _text(data)
    entries = _from_json(text) if found and found["kind"] == "json" else _from_csv(text)
    folder = blob_name[: len(blob_name) - len(_last(blob_name))]
    names = tuple(_checked(entries, folder, blob_name))
    if not names:
        raise BadManifest(Refusal.NO_NAMES)
    return ListedNames(names=names)


def taken(names: ListedNames, stored_as: str, stored: bytes) -> ManifestFacts:
    """The facts of a manifest whose list lies in the blob `stored_as`."""
    return ManifestFacts(listed=len(names.names), names=stored_as, sha256=hashlib.sha256(stored).hexdigest())


def refused(blob_name: str, error: BadManifest) -> ManifestFacts:
    """The facts of a manifest that is not taken."""
    kind = "csv" if blob_name.lower().endswith(".csv") else "json"
    other = next(name for name in (f"manifest-2.{kind}", f"manifest-3.{kind}") if name != _last(blob_name).lower())
    where = f" ({error.where})" if error.where else ""
    explanation = f"{EXPLANATIONS[error.refusal]}{where}. {WAY_OUT.format(other=other)}"
    return ManifestFacts(refused=error.refusal.value, explanation=explanation)


def encode_names(names: ListedNames) -> bytes:
    """Byte for byte the same for the same list."""
    return msgspec.json.encode(names)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _text(data: bytes) -> str:
    if data.startswith(_UTF16):
        raise BadManifest(Refusal.WRONG_ENCODING, "it is UTF-16")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadManifest(Refusal.WRONG_ENCODING, f"byte {error.start:,}") from error
    if "\0" in text:
        raise BadManifest(Refusal.WRONG_ENCODING, "it holds zero bytes")
    return text


def _from_json(text: str) -> Iterator[tuple[str, str]]:
    """Each name with its place, for people."""
    try:
        listing = _json.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadManifest(Refusal.MALFORMED, display.one_line(str(error), 120)) from error
    files = listing.files if isinstance(listing, _Listing) else listing
    for number, entry in enumerate(files, 1):
        yield (entry if isinstance(entry, str) else entry.name), f"entry {number:,}"


def _from_csv(text: str) -> Iterator[tuple[str, str]]:
    first = text[: text.find("\n")] if "\n" in text else text
    delimiter = max(_DELIMITERS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    column: int | None = None
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if column is None:
                column = _column(row)
                if column >= 0:
                    continue
            if column < 0 and len(row) != 1:
                raise BadManifest(Refusal.NO_NAMES, f"line {rows.line_num:,} has {len(row):,} columns and no heading")
            if len(row) <= column:
                raise BadManifest(Refusal.MALFORMED, f"line {rows.line_num:,} is too short")
            yield row[max(column, 0)].strip(), f"line {rows.line_num:,}"
    except csv.Error as error:
        raise BadManifest(Refusal.MALFORMED, f"line {rows.line_num:,}: {error}") from error


def _column(heading: list[str]) -> int:
    """Where the names are; -1 where the first line is no heading."""
    words = [cell.strip().casefold() for cell in heading]
    return next((place for place, word in enumerate(words) if word in _HEADINGS), -1)


def _checked(entries: Iterator[tuple[str, str]], folder: str, own_name: str) -> Iterator[str]:
    """Full names; the manifest's own is left out: a list of a folder often holds itself."""
    seen: set[str] = set()
    for number, (name, place) in enumerate(entries):
        if number >= MAX_FILES:
            raise BadManifest(Refusal.TOO_MANY_FILES)
        full = folder + name
        if not _is_name(name) or len(full) > MAX_NAME:
            shown = display.name(name[: 4 * SHOWN], SHOWN)
            raise BadManifest(Refusal.BAD_NAME, f"{place}: {shown}")
        same = normal(full)
        if same in seen:
            raise BadManifest(Refusal.REPEATED_NAME, f"{place}: {display.name(name[: 4 * SHOWN], SHOWN)}")
        seen.add(same)
        if full != own_name:
            yield full


def _is_name(name: str) -> bool:
    """Whether an upload can have this name below the manifest's folder: no way out of it, no controls."""
    if not name or "\\" in name or any(unicodedata.category(one) in ("Cc", "Cs") for one in name):
        return False
    return not any(part in ("", ".", "..") for part in name.split("/")) and not re.match(r"[A-Za-z]:", name)


def normal(name: str) -> str:
    """Names that look alike are one here: macOS decomposes letters (`e` and an accent) where lists have them whole."""
    return unicodedata.normalize("NFC", name)

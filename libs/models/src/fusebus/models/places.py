"""Where the registry keeps what: names of blobs, derived from a version's name."""

from __future__ import annotations

import re
from typing import NamedTuple

from fusebus.models.live import RegistryError
from fusebus.models.manifest import MANIFEST_NAME

LIVE = "live.json"
VERSIONS = "versions/"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?"
_REF = re.compile(rf"({_PART})@({_PART})")
_MANIFEST = re.compile(rf"{VERSIONS}({_PART})/({_PART})/{re.escape(MANIFEST_NAME)}")


class Ref(NamedTuple):
    """A version, `name@version` as text."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def folder(self) -> str:
        """Common beginning of its files' blob names."""
        return f"{VERSIONS}{self.name}/{self.version}/"

    @property
    def manifest(self) -> str:
        """Blob that is written last: a version without it does not exist."""
        return self.folder + MANIFEST_NAME

    @property
    def push(self) -> str:
        """Blob that says who brought it."""
        return f"pushes/{self.name}/{self.version}.json"

    @property
    def tombstone(self) -> str:
        """Blob that says who deleted it; its name is never given again."""
        return f"deleted/{self.name}/{self.version}.json"


def parse_ref(text: str) -> Ref:
    """Raises RegistryError for what is not NAME@VERSION."""
    found = _REF.fullmatch(text)
    if not found:
        raise RegistryError(f"{text!r} names no version: write NAME@VERSION, as fusebus model list shows them")
    return Ref(found[1], found[2])


def ref_of(manifest_blob: str) -> Ref | None:
    """The version whose manifest this blob is; None for any other blob."""
    found = _MANIFEST.fullmatch(manifest_blob)
    return Ref(found[1], found[2]) if found else None

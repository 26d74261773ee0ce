"""One file of the corpus, and what must be said of it."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH, HEIGHT = 640, 448  # pixels of most of them: multiples of 16 and above the size of a warning

DAMAGED, COMPLEX, PIXELS = ("damaged",), ("too_complex",), ("too_many_pixels",)
NO_IMAGE, OTHER = ("not_an_image",), ("unsupported_format",)


@dataclass(frozen=True)
class Case:
    """One file and what must be said of it."""

    name: str
    data: bytes
    reasons: tuple[str, ...] = ()
    """Codes of a rejection, any of them; empty: accepted."""
    size: tuple[int, int] | None = None
    """Width and height of an accepted picture, upright."""
    colour: tuple[int, int, int] | None = None
    """Of an accepted picture all over, where one picture of several must be the one."""
    quality: tuple[str, ...] | None = None
    kept: tuple[str, str] = ("", "")
    """captured_at and camera of an accepted picture."""

    @property
    def verdict(self) -> str:
        """`accept` or `reject`."""
        return "reject" if self.reasons else "accept"

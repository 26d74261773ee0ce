"""One picture file in, one lossless file out: what every way of converting calls."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fusebus.convert.png import encode_png
from fusebus.convert.reading import Scratch, read
from fusebus.convert.webp import encode_webp


class Format(StrEnum):
    """What pictures are converted to."""

    PNG = "png"
    WEBP = "webp"


_VERSIONS = {(Format.PNG, False): 5, (Format.PNG, True): 6, (Format.WEBP, False): 3, (Format.WEBP, True): 4}
"""By format and `small`. Grows when the same source would give other bytes: what an older version made is made anew."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a picture becomes."""

    format: Format = Format.PNG
    small: bool = False

    @property
    def name(self) -> str:
        """Names the conversion with its version, as a model is named: `png@5`, `png-small@6`."""
        return f"{self.format.value}{'-small' * self.small}@{_VERSIONS[self.format, self.small]}"

    @property
    def content_type(self) -> str:
        """Of what is written."""
        return f"image/{self.format.value}"


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """The new file and what is known of it."""

    data: bytes
    width: int
    """Pixels, upright."""
    height: int
    mode: str
    """See Picture.mode; WebP has RGB and RGBA only."""
    source_format: str
    frames: int
    """Pictures in the source: only the first is in the new file."""


def convert(data: bytes, target: Target, scratch: Scratch | None = None) -> Converted:
    """Decode strictly, turn upright, write anew: pixels and ICC profile are kept, all other metadata is left behind.

    The same bytes give the same bytes, on processors of one kind. `scratch`: memory of the calling thread, used again.
    Raises Unconvertible.
    """
    picture = read(data, scratch)
    encode = encode_png if target.format is Format.PNG else encode_webp
    made = encode(picture, small=target.small)
    return Converted(
        data=made,
        width=picture.width,
        height=picture.height,
        mode=picture.mode,
        source_format=picture.format,
        frames=picture.frames,
    )

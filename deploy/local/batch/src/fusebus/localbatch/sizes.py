"""VM sizes: cores, GPUs, memory and family, as Batch lists them for a region."""

from __future__ import annotations

import re
from dataclasses import dataclass

OTHER_CORES = 4  # of a size that is not listed and whose name has no number
_CORES_IN_NAME = re.compile(r"standard_[a-z]+(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Size:
    name: str
    family: str
    cores: int
    gpus: int
    memory_gib: float
    end_of_life: str | None = None  # day from which Batch does not support it


# Names and numbers as Azure's documentation of virtual machine sizes and families has them.
_T4, _A100, _H100 = "standardNCASv3_T4Family", "StandardNCADSA100v4Family", "StandardNCadsH100v5Family"
SIZES = (
    Size("Standard_NC4as_T4_v3", _T4, 4, 1, 28),
    Size("Standard_NC8as_T4_v3", _T4, 8, 1, 56),
    Size("Standard_NC16as_T4_v3", _T4, 16, 1, 110),
    Size("Standard_NC64as_T4_v3", _T4, 64, 4, 440),
    Size("Standard_NC24ads_A100_v4", _A100, 24, 1, 220),
    Size("Standard_NC48ads_A100_v4", _A100, 48, 2, 440),
    Size("Standard_NC96ads_A100_v4", _A100, 96, 4, 880),
    Size("Standard_NC40ads_H100_v5", _H100, 40, 1, 320),
    Size("Standard_NC80adis_H100_v5", _H100, 80, 2, 640),
    Size("Standard_NC6s_v3", "standardNCSv3Family", 6, 1, 112, "2025-09-30"),
    *(Size(f"Standard_D{cores}s_v5", "standardDSv5Family", cores, 0, 4 * cores) for cores in (2, 4, 8, 16, 32)),
    *(Size(f"Standard_D{cores}as_v5", "standardDASv5Family", cores, 0, 4 * cores) for cores in (2, 4, 8, 16, 32)),
    *(Size(f"Standard_F{cores}s_v2", "standardFSv2Family", cores, 0, 2 * cores) for cores in (2, 4, 8, 16, 32)),
)
_BY_NAME = {size.name.lower(): size for size in SIZES}


def size_of(name: str) -> Size:
    """The size of that name; one that is not listed has the cores that its name tells, and no family."""
    known = _BY_NAME.get(name.lower())
    if known is not None:
        return known
    told = _CORES_IN_NAME.match(name)
    return Size(name, "otherFamily", int(told[1]) if told else OTHER_CORES, 0, 0)

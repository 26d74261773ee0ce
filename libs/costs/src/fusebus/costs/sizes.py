"""What the VM sizes are that Fusebus buys: family (quotas are by family), vCPUs, GPUs, memory."""

from __future__ import annotations

import re

import msgspec

PREFIX = "Standard_"


class UnknownVmSize(ValueError):
    """A VM size that is not in SIZES."""


class VmSize(msgspec.Struct, frozen=True, kw_only=True):
    """One VM size, as Azure describes it."""

    name: str
    """With its prefix: `Standard_NC4as_T4_v3`."""
    family: str
    """As compute quotas call it; Batch writes some without spaces: compare with `same_family`."""
    vcpus: int
    gpus: int
    gpu: str
    """Model of one GPU; empty where there is none."""
    gpu_memory_gib: int
    """Of one GPU."""
    memory_gib: int
    peak_tflops: float = 0.0
    """Of one GPU: dense FP16 with tensor cores, from the maker's data sheet; the estimate's yardstick."""

    @property
    def short_name(self) -> str:
        """Without the prefix: `NC4as_T4_v3`."""
        return self.name.removeprefix(PREFIX)


SIZES = (
    VmSize(
        name="Standard_NC4as_T4_v3",
        family="Standard NCASv3_T4 Family",
        vcpus=4,
        gpus=1,
        gpu="NVIDIA T4",
        gpu_memory_gib=16,
        memory_gib=28,
        peak_tflops=65.0,
    ),
    VmSize(
        name="Standard_NC24ads_A100_v4",
        family="StandardNCADSA100v4Family",
        vcpus=24,
        gpus=1,
        gpu="NVIDIA A100 80 GB",
        gpu_memory_gib=80,
        memory_gib=220,
        peak_tflops=312.0,
    ),
    VmSize(
        name="Standard_NC40ads_H100_v5",
        family="StandardNCadsH100v5Family",
        vcpus=40,
        gpus=1,
        gpu="NVIDIA H100 NVL",
        gpu_memory_gib=94,
        memory_gib=320,
        peak_tflops=835.0,
    ),
    VmSize(
        name="Standard_D4s_v5", family="standardDSv5Family", vcpus=4, gpus=0, gpu="", gpu_memory_gib=0, memory_gib=16
    ),
    VmSize(
        name="Standard_D8s_v5", family="standardDSv5Family", vcpus=8, gpus=0, gpu="", gpu_memory_gib=0, memory_gib=32
    ),
)

_BY_NAME = {size.name.lower(): size for size in SIZES}


def full_name(name: str) -> str:
    """The name as Azure writes it; `NC4as_T4_v3` and other capitals are taken too, an unknown size keeps its own."""
    prefixed = name if name.lower().startswith(PREFIX.lower()) else PREFIX + name
    known = _BY_NAME.get(prefixed.lower())
    return known.name if known else prefixed


def vm_size(name: str) -> VmSize:
    """The facts of a VM size, with or without `Standard_`. Raises UnknownVmSize."""
    found = _BY_NAME.get(full_name(name).lower())
    if found is None:
        known = ", ".join(size.short_name for size in SIZES)
        raise UnknownVmSize(f"VM size {name!r} is not known here; known are {known}")
    return found


def same_family(one: str, other: str) -> bool:
    """Whether two names mean one family: spaces, underscores, capitals and the words around it don't count."""
    return _bare(one) == _bare(other)


def _bare(family: str) -> str:
    return re.sub(r"[\s_]|^standard|family$", "", family.lower().strip())

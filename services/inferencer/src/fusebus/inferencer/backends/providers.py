"""Which execution providers a session is given, in which order and with which options: values in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fusebus.inferencer.backends import BackendError

CPU: Literal["CPUExecutionProvider"] = "CPUExecutionProvider"
CUDA: Literal["CUDAExecutionProvider"] = "CUDAExecutionProvider"
TENSORRT: Literal["TensorrtExecutionProvider"] = "TensorrtExecutionProvider"
Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"]


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """How a GPU is used. A provider on the CPU takes none of it."""

    device: int = 0
    """Its number among those that the process sees."""
    cuda_graph: bool = False
    """Record the kernels of a call once for each batch size and replay them: no launch costs, but fixed memory."""
    engine_cache: Path | None = None
    """Folder where TensorRT keeps built engines: minutes the first time, seconds afterwards. They are code: whoever
    writes there runs in this process, so it must be ours alone."""


class Inputs(NamedTuple):
    """What the graph will be given, for those who compile it ahead."""

    size: int
    """Edge of a picture in pixels."""
    most: int
    """Largest batch."""
    half: bool
    """Whether its weights are 16-bit."""


def session_providers(
    provider: str, accelerator: Accelerator | None = None, inputs: Inputs | None = None
) -> list[tuple[str, dict[str, str]]]:
    """For onnxruntime.InferenceSession(providers=...). What the first can't run the next one may.

    Raises BackendError for options that the provider has not.
    """
    wanted = accelerator or Accelerator()
    if wanted.cuda_graph and provider not in (CUDA, TENSORRT):
        raise BackendError(f"CUDA graphs were asked for on {provider}: set {CUDA} or {TENSORRT}, or no graphs")
    if wanted.engine_cache is not None and provider != TENSORRT:
        raise BackendError(f"an engine cache was given to {provider}: only {TENSORRT} builds engines")
    match provider:
        case "TensorrtExecutionProvider":
            return [(TENSORRT, _tensorrt(wanted, inputs)), (CUDA, {"device_id": str(wanted.device)}), (CPU, {})]
        case "CUDAExecutionProvider":
            options = {"device_id": str(wanted.device), "enable_cuda_graph": _flag(wanted.cuda_graph)}
            return [(CUDA, options), (CPU, {})]
    return [(provider, {})] if provider == CPU else [(provider, {}), (CPU, {})]


def _tensorrt(wanted: Accelerator, inputs: Inputs | None) -> dict[str, str]:
    options = {"device_id": str(wanted.device), "trt_cuda_graph_enable": _flag(wanted.cuda_graph)}
    if wanted.engine_cache is not None:
        folder = str(wanted.engine_cache.absolute())
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
    if inputs is not None:  # one engine for all batch sizes; without it each new size builds another

        def shape(batch: int) -> str:
            return f"images:{batch}x{inputs.size}x{inputs.size}x3"

        options |= {"trt_profile_min_shapes": shape(1), "trt_profile_max_shapes": shape(inputs.most)}
        options |= {"trt_profile_opt_shapes": shape(inputs.most), "trt_fp16_enable": _flag(inputs.half)}
    return options


def _flag(value: bool) -> str:
    return "1" if value else "0"

"""ONNX Runtime as a backend, on the execution provider that was asked for and on no other."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusebus.inferencer.backends import BackendError, Outputs
from fusebus.inferencer.backends.binding import BoundSession
from fusebus.inferencer.backends.providers import CUDA, TENSORRT, Accelerator, Inputs, session_providers
from fusebus.models.manifest import ModelManifest

_INPUT = "images"
_OUTPUTS = ("scores", "boxes", "masks")
_CLASSES = "classes"
"""An output that a model with one prompt may leave out: then everything is of class 0."""
_WAYS_OUT = {
    CUDA: "install fusebus-inferencer[gpu] in place of [cpu], with a driver for CUDA 13, or set "
    "FUSEBUS_INFERENCER_PROVIDER=CPUExecutionProvider",
    TENSORRT: "install fusebus-inferencer[tensorrt] in place of [cpu], with a driver for CUDA 13, or set "
    "FUSEBUS_INFERENCER_PROVIDER=CUDAExecutionProvider",
}


class OnnxBackend:
    """A session over one ONNX file. Raises BackendError where it would not run on `provider`.

    `inputs` says what it will be given, for TensorRT, which builds its engine for that.
    """

    def __init__(
        self,
        model: Path,
        provider: str,
        intra_op_threads: int,
        accelerator: Accelerator | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        onnxruntime = _onnxruntime()
        providers = session_providers(provider, accelerator, inputs)
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise BackendError(_missing(provider, f"this onnxruntime knows {', '.join(available)} only"))
        _load_libraries(onnxruntime, provider)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # codec threads need the cores
        options.log_severity_level = 3  # errors; what matters of the warnings is checked below
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime's own errors share no public base
            raise BackendError(f"{model} does not load: {error}") from error
        require_provider(provider, self._session.get_providers())
        names = {found.name for found in (*self._session.get_inputs(), *self._session.get_outputs())}
        if absent := {_INPUT, *_OUTPUTS} - names:
            raise BackendError(f"{model} has no input or output named {', '.join(sorted(absent))}")
        self._outputs = (*_OUTPUTS, _CLASSES) if _CLASSES in names else _OUTPUTS
        self._bound: BoundSession | None = None
        if provider in (CUDA, TENSORRT):
            wanted = accelerator or Accelerator()
            self._bound = BoundSession(
                self._session, _INPUT, self._outputs, "cuda", wanted.device, graphs=wanted.cuda_graph
            )

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """See Backend."""
        if self._bound is not None:
            scores, boxes, masks, *classes = self._bound.run(images)
        else:
            scores, boxes, masks, *classes = self._session.run(self._outputs, {_INPUT: images})
        return Outputs(scores, boxes, masks, classes[0] if classes else np.zeros(scores.shape, np.int64))


def open_backend(
    folder: Path,
    manifest: ModelManifest,
    provider: str,
    intra_op_threads: int,
    max_batch: int,
    accelerator: Accelerator | None = None,
) -> OnnxBackend:
    """The model in `folder`, for batches of up to `max_batch`. Raises BackendError."""
    inputs = Inputs(manifest.image_size, max_batch, manifest.precision == "fp16")
    return OnnxBackend(folder / manifest.file, provider, intra_op_threads, accelerator, inputs)


def _load_libraries(onnxruntime: Any, provider: str) -> None:
    """From their wheels; without them onnxruntime would log an error and run on the CPU."""
    if provider in (CUDA, TENSORRT):
        onnxruntime.preload_dlls()  # CUDA and cuDNN
    if provider == TENSORRT:
        with contextlib.suppress(ModuleNotFoundError):  # then they are the system's, or missing, which is found out
            import_module("tensorrt")


def _onnxruntime() -> Any:
    """Imported in the model's thread, and not before a model is wanted: 0.2 s."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise BackendError("no onnxruntime: install exactly one of fusebus-inferencer[cpu] and [gpu]") from error
    return onnxruntime


def require_provider(wanted: str, actual: Sequence[str]) -> None:
    """Raises BackendError unless the session runs on `wanted` first: onnxruntime falls back with a log line only."""
    if not actual or actual[0] != wanted:
        raise BackendError(_missing(wanted, f"onnxruntime fell back to {actual[0] if actual else 'nothing'}"))


def _missing(provider: str, found: str) -> str:
    return f"{provider} was asked for, but {found}: {_WAYS_OUT.get(provider, 'another onnxruntime is needed')}"

"""Runs a session on buffers that stay where they are on the device, as CUDA graphs need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusebus.inferencer.backends import BackendError

_KINDS: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True, eq=False)
class _Buffers:
    binding: Any
    images: Any
    outputs: Sequence[Any]
    options: Any


class BoundSession:
    """An onnxruntime session with IO binding: one set of buffers, and one graph, for each batch size it has met.

    `device` is `cuda` or `cpu`. One thread only. With `graphs` the session's provider must have been told so, too: the
    first call of a batch size runs and records, those after it replay.
    """

    def __init__(
        self, session: Any, image_input: str, outputs: Sequence[str], device: str, number: int = 0, graphs: bool = False
    ) -> None:
        import onnxruntime

        self._ort = onnxruntime
        self._session = session
        self._input = image_input
        self._device, self._number = device, number
        self._graphs = graphs
        described = {output.name: output for output in session.get_outputs()}
        self._outputs = {name: self._described(described[name]) for name in outputs}
        self._buffers: dict[int, _Buffers] = {}

    def run(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """The outputs for `images` (B, size, size, 3) in the order asked for, in memory of their own."""
        buffers = self._buffers.get(len(images)) or self._allocate(images.shape)
        buffers.images.update_inplace(np.ascontiguousarray(images))
        buffers.binding.synchronize_inputs()
        self._session.run_with_iobinding(buffers.binding, buffers.options)
        buffers.binding.synchronize_outputs()
        # On a CPU numpy() is a view of the buffer, which the next call overwrites.
        return [output.numpy().copy() if self._device == "cpu" else output.numpy() for output in buffers.outputs]

    def _allocate(self, shape: tuple[int, ...]) -> _Buffers:
        binding = self._session.io_binding()
        images = self._value(shape, np.uint8)
        binding.bind_ortvalue_input(self._input, images)
        outputs = []
        for name, (rest, kind) in self._outputs.items():
            outputs.append(self._value((shape[0], *rest), kind))
            binding.bind_ortvalue_output(name, outputs[-1])
        options = self._ort.RunOptions()
        if self._graphs:
            options.add_run_config_entry("gpu_graph_id", str(shape[0]))
        made = self._buffers[shape[0]] = _Buffers(binding, images, outputs, options)
        return made

    def _value(self, shape: tuple[int, ...], kind: type[np.generic]) -> Any:
        return self._ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, self._device, self._number)

    @staticmethod
    def _described(output: Any) -> tuple[tuple[int, ...], type[np.generic]]:
        rest = tuple(output.shape[1:])
        if not all(isinstance(edge, int) for edge in rest) or output.type not in _KINDS:
            raise BackendError(f"output {output.name} is {output.type} {output.shape}: only the batch may vary")
        return rest, _KINDS[output.type]

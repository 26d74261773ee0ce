"""SAM 3 with random weights on a GPU: torch, torch.compile and ONNX Runtime in one run, against the floor.

For each precision and batch size: milliseconds per call with the copies to and from the device, images per second, and
how many times the floor (operations of the model ÷ what a large matrix product reaches here) that is; which attention
kernels ran; how far ONNX Runtime's outputs lie from torch in float32. Prints tables and writes benchmarks/gpu.json.

Examples:
  .venv/bin/python tests/benchmarks/bench_gpu.py                      full size on the first GPU
  .venv/bin/python tests/benchmarks/bench_gpu.py --tensorrt           TensorRT as well (builds engines: minutes more)
  .venv/bin/python tests/benchmarks/bench_gpu.py --device cpu --tiny  does every step where there is no GPU
"""

import argparse
import copy
import gc
import itertools
import json
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model

from fusebus.inferencer.backends.binding import BoundSession
from fusebus.inferencer.backends.onnx import OnnxBackend
from fusebus.inferencer.backends.providers import CPU, CUDA, TENSORRT, Accelerator, Inputs
from fusebus.vision.export.onnx_export import keep_served, write_probed
from fusebus.vision.export.parity import PROBED, Probe, compare
from fusebus.vision.export.sam3 import TINY_PROMPT_TOKENS, Sam3Detector, ServingGraph, tiny_config

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NOT_IN_ONNX = {"bf16": "not measured: ONNX's Einsum, which the masks are made with, has no bfloat16"}
FULL_PROMPT_TOKENS = (49406, 23386, 17011, 49407)  # "fuse neutral"
SEED = 20
PICTURE_SETS = 3  # used in turn, so that no call finds its input in a cache
WARM_UP_CALLS = 3
LEAST_CALLS, LEAST_CALLS_ON_CPU = 20, 3
PEAK_EDGE, PEAK_EDGE_ON_CPU = 8192, 1024  # of the matrices of the product that shows what the device can do
ATTENTION = re.compile(r"flash|fmha|attention|sdpa|scaled_dot", re.IGNORECASE)
LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt-cu13", "triton")

Call = Callable[[np.ndarray], Any]


def build(tiny: bool) -> ServingGraph:
    """The serving graph in float32 on the CPU; random weights, the same each time."""
    torch.manual_seed(SEED)
    model = Sam3Model(tiny_config() if tiny else Sam3Config()).eval()
    detector = Sam3Detector(model, TINY_PROMPT_TOKENS if tiny else FULL_PROMPT_TOKENS)
    return ServingGraph(detector, 8 if tiny else 100).eval().requires_grad_(False)


def pictures(size: int, batch: int) -> list[np.ndarray]:
    """Noise: what is in them changes no time here."""
    random = np.random.default_rng(SEED)
    return [random.integers(0, 256, (batch, size, size, 3), np.uint8) for _ in range(PICTURE_SETS)]


def milliseconds(call: Call, inputs: list[np.ndarray], seconds: float, least: int) -> float:
    """Median wall time of a call, which must not return before its outputs are on the host."""
    turn = itertools.cycle(inputs)
    for _ in range(WARM_UP_CALLS):
        call(next(turn))
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < least or time.perf_counter() < end:
        before = time.perf_counter()
        call(next(turn))
        taken.append(time.perf_counter() - before)
    return statistics.median(taken) * 1000


def torch_call(graph: Callable[[torch.Tensor], Any], device: str) -> Call:
    """Copy in, compute, copy out."""

    def call(images: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [output.cpu().numpy() for output in graph(torch.from_numpy(images).to(device))]

    return call


def peak_flops(kind: torch.dtype, device: str, seconds: float) -> float:
    """Operations a second of one large matrix product of random numbers."""
    edge = PEAK_EDGE_ON_CPU if device == "cpu" else PEAK_EDGE
    left, right = (torch.randn((edge, edge), device=device).to(kind) for _ in range(2))

    def product(_: np.ndarray) -> None:
        _ = left @ right
        if device != "cpu":
            torch.cuda.synchronize()

    return 2 * edge**3 / (milliseconds(product, [np.empty(0)], seconds, LEAST_CALLS) / 1000)


def operations(graph: ServingGraph, size: int, device: str) -> float:
    """Floating-point operations for one picture, as torch counts those of products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        graph(torch.zeros((1, size, size, 3), dtype=torch.uint8, device=device))
    return float(counter.get_total_flops())


def attention_kernels(call: Call, images: np.ndarray, device: str) -> dict[str, float]:
    """The kernels of one call that are attention by their name, with their share of the time on the device."""
    kinds = [torch.profiler.ProfilerActivity.CPU if device == "cpu" else torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        call(images)
    events = profile.key_averages()
    cost = {
        event.key: event.self_cpu_time_total if device == "cpu" else event.self_device_time_total for event in events
    }
    total = sum(cost.values()) or 1.0
    return {name[:120]: round(spent / total, 4) for name, spent in cost.items() if spent and ATTENTION.search(name)}


def contenders_of_torch(graph: ServingGraph, device: str) -> Iterator[tuple[str, Callable[[], Call]]]:
    """What torch offers; each is made when its turn comes."""
    yield "torch eager", lambda: torch_call(graph, device)
    # On a CPU inductor compiles for minutes and shows nothing: there only the tracing is tried.
    options = {"backend": "aot_eager"} if device == "cpu" else {"mode": "max-autotune"}
    yield "torch.compile", lambda: torch_call(torch.compile(graph, dynamic=False, **options), device)


def contenders_of_onnx(
    path: Path, device: str, inputs: Inputs, arguments: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], Call]]]:
    """ONNX Runtime as the inferencer opens it: a provider that silently falls back is a BackendError here."""

    def opened(provider: str, accelerator: Accelerator | None = None) -> Callable[[], Call]:
        return lambda: OnnxBackend(path, provider, 1, accelerator, inputs).run

    if device == "cpu":
        yield "ONNX Runtime, CPU", opened(CPU)
        return
    yield "ONNX Runtime, CUDA", opened(CUDA)
    yield "ONNX Runtime, CUDA graphs", opened(CUDA, Accelerator(cuda_graph=True))
    if arguments.tensorrt:
        arguments.engines.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield "ONNX Runtime, TensorRT", opened(TENSORRT, Accelerator(cuda_graph=True, engine_cache=arguments.engines))


def onnx_parity(path: Path, provider: str, inputs: Inputs, expected: Probe, images: np.ndarray) -> dict[str, Any]:
    """Cosine of each output with torch in float32, detections matched by query."""
    backend = OnnxBackend(path, provider, 1, inputs=inputs)
    bound = BoundSession(backend._session, "images", PROBED, "cpu" if provider == CPU else "cuda")
    found = compare(expected, Probe(*bound.run(images)))
    return {"cosine": {name: round(value, 6) for name, value in found.cosine.items()}, "missed_score": found.missed}


def attempt(make: Callable[[], Any]) -> tuple[Any, str]:
    """What it gives, or why it can't: one contender that fails must not cost the others' figures."""
    try:
        return make(), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"


class Run:
    """One run over all precisions; its figures are rows of plain values."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.device: str = arguments.device
        self.graph = build(arguments.tiny)
        self.size = int(self.graph.detector.model.config.vision_config.backbone_config.image_size)
        self.least = LEAST_CALLS_ON_CPU if self.device == "cpu" else LEAST_CALLS
        self.rows: list[dict[str, Any]] = []
        self.kernels: dict[str, dict[str, float]] = {}
        self.parity: dict[str, Any] = {}
        self.floors: dict[str, dict[str, float]] = {}
        reference = copy.deepcopy(self.graph).to(self.device)
        self.parity_images = pictures(self.size, 2)[0]
        with torch.inference_mode():
            probed = reference.probed(torch.from_numpy(self.parity_images).to(self.device))
            self.expected = Probe(*(output.cpu().numpy() for output in probed))
        self.operations = operations(reference, self.size, self.device)

    def precision(self, name: str) -> None:
        """Everything in one precision."""
        peak = peak_flops(TYPES[name], self.device, self.arguments.seconds)
        floor = self.operations / peak * 1000
        self.floors[name] = {"peak_tflops": round(peak / 1e12, 3), "floor_ms": round(floor, 3)}
        print(
            f"\n{name}: a matrix product reaches {peak / 1e12:.3g} TFLOP/s; floor {floor:.2f} ms a picture", flush=True
        )
        with tempfile.TemporaryDirectory() as folder:
            graph = copy.deepcopy(self.graph).to(TYPES[name])
            path, why = None, NOT_IN_ONNX.get(name, "")
            if not why:
                path, why = attempt(partial(self._exported, name, graph, Path(folder)))
            for label, make in contenders_of_torch(graph.to(self.device), self.device):
                self._contender(name, label, make)
            graph.cpu()  # its memory on the device is the next one's
            if path is None:
                self._row(name, "ONNX Runtime", self.arguments.batches[0], None, why)
                return
            for label, make in contenders_of_onnx(path, self.device, self._inputs(name), self.arguments):
                self._contender(name, label, make)

    def _inputs(self, precision: str) -> Inputs:
        return Inputs(self.size, max(self.arguments.batches), precision == "fp16")

    def _exported(self, name: str, graph: ServingGraph, folder: Path) -> Path:
        path = write_probed(graph, folder)
        providers = [CPU] if self.device == "cpu" else [CUDA, *([TENSORRT] if self.arguments.tensorrt else [])]
        for provider in providers:
            found, why = attempt(
                partial(onnx_parity, path, provider, self._inputs(name), self.expected, self.parity_images)
            )
            self.parity[f"{name}, {provider}"] = found or why
            print(f"parity {name}, {provider}: {found or why}", flush=True)
            self._release()
        keep_served(path)
        return path

    def _contender(self, precision: str, label: str, make: Callable[[], Call]) -> None:
        call, why = attempt(make)
        for batch in self.arguments.batches:
            inputs = pictures(self.size, batch)
            taken = None
            if call is not None:
                taken, why = attempt(partial(milliseconds, call, inputs, self.arguments.seconds, self.least))
            self._row(precision, label, batch, taken, why)
        if call is not None:
            one = pictures(self.size, self.arguments.batches[0])[0]
            found, why = attempt(partial(attention_kernels, call, one, self.device))
            self.kernels[f"{precision}, {label}"] = found if found is not None else {why: 0.0}
        del call
        self._release()

    def _row(self, precision: str, label: str, batch: int, taken: float | None, why: str) -> None:
        row: dict[str, Any] = {"precision": precision, "runner": label, "batch": batch}
        if taken is None:
            row["not_measured" if why in NOT_IN_ONNX.values() else "failed"] = why
            cells = [why, "", ""]
        else:
            floor = self.floors[precision]["floor_ms"]
            row |= {"ms_per_image": round(taken / batch, 3), "images_per_second": round(1000 * batch / taken, 1)}
            row["times_the_floor"] = round(taken / batch / floor, 2)
            cells = [
                f"{row['ms_per_image']:.2f} ms",
                f"{row['images_per_second']:.1f}",
                f"{row['times_the_floor']:.2f}",
            ]
        print("| " + " | ".join([precision, label, str(batch), *cells]) + " |", flush=True)
        self.rows.append(row)

    def _release(self) -> None:
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on and with."""
    facts: dict[str, Any] = {"python": platform.python_version(), "processor": platform.machine()}
    facts["threads"] = torch.get_num_threads()
    if device != "cpu":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name,
            "memory_gib": round(properties.total_memory / 2**30),
            "cuda": torch.version.cuda,
        }
        facts["compute_capability"] = f"{properties.major}.{properties.minor}"
    for library in LIBRARIES:
        try:
            facts[library] = version(library)
        except PackageNotFoundError:
            continue
    return facts


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the demo model's architecture in place of the full one")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument(
        "--precisions", choices=tuple(TYPES), nargs="+", default=None, help="default: fp16 bf16; fp32 on a CPU"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring each figure, at least")
    parser.add_argument("--tensorrt", action="store_true", help="measure the TensorRT provider, too")
    parser.add_argument("--engines", type=Path, default=Path(".cache/engines"), help="where TensorRT keeps its engines")
    parser.add_argument(
        "--out", type=Path, default=None, help="default: benchmarks/gpu.json; on a CPU nothing is written"
    )
    arguments = parser.parse_args()
    arguments.precisions = arguments.precisions or (["fp32"] if arguments.device == "cpu" else ["fp16", "bf16"])
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; to try the script without one: --device cpu --tiny")
    if arguments.out is None and arguments.device == "cuda":
        arguments.out = Path("benchmarks/gpu.json")
    return arguments


def main() -> int:
    """Measure, print, write; 1 where a contender failed."""
    arguments = parse()
    if arguments.device == "cpu":
        torch.set_num_threads(1)  # a trial of the script: it must not fight for cores
    run = Run(arguments)
    print(f"{run.operations / 1e12:.4f} TFLOP for a picture of {run.size} × {run.size}; {machine(arguments.device)}")
    print("| precision | runner | batch | per image | images/s | × floor |\n| --- | --- | --- | --- | --- | --- |")
    for precision in arguments.precisions:
        run.precision(precision)
    print("\nattention kernels, with their share of a call:")
    for label, found in run.kernels.items():
        print(f"- {label}: " + ("; ".join(f"{name} {share:.0%}" for name, share in found.items()) or "none by name"))
    figures = {
        "command": "tests/benchmarks/bench_gpu.py " + " ".join(sys.argv[1:]),
        "machine": machine(arguments.device),
        "tflop_per_picture": round(run.operations / 1e12, 4),
        "floors": run.floors,
        "figures": run.rows,
        "attention_kernels": run.kernels,
        "parity_with_torch_fp32": run.parity,
    }
    if arguments.out is not None:
        arguments.out.parent.mkdir(exist_ok=True)
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if any("failed" in row for row in run.rows) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Owns the whole way from a user's checkpoint to a model folder that may be served: a folder appears only if the graph
in it was proved to compute the same as the checkpoint."""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from fusebus.models import ModelError, ModelManifest, load_manifest, write_manifest
from fusebus.models.inspection import inspect_graph
from fusebus.models.manifest import FORMAT_VERSION, ModelSource, describe_file
from fusebus.vision import decode, resize_to_model
from fusebus.vision.boards import draw_board
from fusebus.vision.errors import ImageError
from fusebus.vision.export.checkpoint import Checkpoint, load_checkpoint
from fusebus.vision.export.errors import CheckpointError, ParityError
from fusebus.vision.export.onnx_export import (
    GRAPH,
    OPSET,
    image_size,
    keep_served,
    open_probed,
    run_torch,
    write_probed,
)
from fusebus.vision.export.parity import BATCHES, SERVED, Probe, Trial, prove, trials
from fusebus.vision.export.sam3 import MASK_CELLS_PER_PATCH, Sam3Detector, ServingGraph, lower_precision
from fusebus.vision.export.tokens import prompt_tokens

TOP_K = 100
_PHOTOGRAPHS = max(BATCHES)
_PHOTOGRAPH_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_BOARD_SEEDS = range(500_000, 500_000 + _PHOTOGRAPHS)  # never trained on, never evaluated on
_BOARD_SIZE = (1600, 1200)  # pixels
_LIBRARIES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxslim")


@dataclass(frozen=True)
class ExportPlan:
    """What is to be made of a checkpoint.

    prompts: class i is prompts[i]. top_k: detections per picture over all classes, by default TOP_K or all queries.
    score_thresholds: one for all classes or one for each. photos: a folder with photographs for the parity check, by
    default generated ones. config, tokenizer, weights: what the checkpoint does not tell (load_checkpoint,
    prompt_tokens). name, version: by default after the first prompt and the files' digest. batches, noise: of the
    parity check, less only where a run takes minutes.
    """

    prompts: tuple[str, ...]
    precision: str = "fp32"
    image_size: int | None = None
    top_k: int | None = None
    score_thresholds: tuple[float, ...] = (0.3,)
    nms_iou: float = 0.6
    external_data: bool = False
    photos: Path | None = None
    config: Path | None = None
    tokenizer: Path | None = None
    weights: str | None = None
    name: str | None = None
    version: str | None = None
    batches: tuple[int, ...] = BATCHES
    noise: bool = True


def export_model(path: Path, out: Path, plan: ExportPlan, report: Callable[[str], None]) -> ModelManifest:
    """Make a model folder `out` of the checkpoint at `path`; `report` gets a line for each step.

    Raises CheckpointError for what can't be taken, ParityError where the graph computes something else, ModelError
    where the graph would not be accepted for serving. `out` exists afterwards only if all went well.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists and is not empty; give another folder or remove it")
    thresholds = _thresholds(plan)
    said = _timed(report)
    checkpoint = load_checkpoint(path, plan.config, plan.weights, plan.image_size)
    said(f"recognised {checkpoint.recognised}")
    graph = _graph(checkpoint, plan, said)
    expected = _expected(graph, plan, said)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        parity = _written(graph, expected, partial, plan, said)
        manifest = _manifest(checkpoint, graph, partial, plan, thresholds, parity)
        write_manifest(partial, manifest)
        load_manifest(partial)
        facts = inspect_graph(partial, manifest)
        said(f"accepted for serving: {facts.nodes} nodes, {facts.weight_bytes:,} bytes of weights")
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _graph(checkpoint: Checkpoint, plan: ExportPlan, said: Callable[[str], None]) -> ServingGraph:
    model = checkpoint.model
    text = model.config.text_config
    tokens = [
        prompt_tokens(prompt, text.vocab_size, text.max_position_embeddings, checkpoint.folder, plan.tokenizer)
        for prompt in plan.prompts
    ]
    for prompt, found in zip(plan.prompts, tokens, strict=True):
        said(f"prompt {prompt!r} has tokens {list(found)}")
    queries = int(model.config.detr_decoder_config.num_queries) * len(tokens)
    try:
        graph: ServingGraph = ServingGraph(
            Sam3Detector(model, tokens[0]), plan.top_k or min(TOP_K, queries), tokens
        ).eval()
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    model.text_encoder = model.text_projection = None  # the prompts are embedded: 40 % of the full model's memory
    return graph


def _expected(graph: ServingGraph, plan: ExportPlan, said: Callable[[str], None]) -> list[tuple[Trial, Probe]]:
    photographs = _photographs(plan.photos, image_size(graph))
    found = [(trial, run_torch(graph, trial.images)) for trial in trials(photographs, plan.batches, plan.noise)]
    said(f"torch ran {len(found)} batches")
    return found


def _written(
    graph: ServingGraph,
    expected: list[tuple[Trial, Probe]],
    folder: Path,
    plan: ExportPlan,
    said: Callable[[str], None],
) -> dict[str, object]:
    """Write the graph, prove it, take the proof's outputs away; returns the parity figures."""
    if plan.precision == "fp16":
        graph = lower_precision(graph, torch.float16)
    path = write_probed(graph, folder, plan.external_data)
    graph.to("meta")  # from here on only its sizes are needed
    said(f"wrote {', '.join(f'{one.name} ({one.stat().st_size:,} bytes)' for one in sorted(folder.iterdir()))}")
    run = open_probed(path)
    found = [(trial, reference, run(trial.images)) for trial, reference in expected]
    del run
    figures = prove(plan.precision, found)
    keep_served(path)
    for one in folder.iterdir():
        one.chmod(0o644)  # external data is written for its owner only
    trial, _, probed = min(found, key=lambda one: len(one[0].images))
    _prove_served(path, trial, probed)
    said(f"parity: {_told(figures)}")
    return figures


def _prove_served(path: Path, trial: Trial, probed: Probe) -> None:
    """The served graph is the proved one less two outputs: it must give the very same bits."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for name, served in zip(SERVED, session.run(list(SERVED), {"images": trial.images}), strict=True):
        if not np.array_equal(served, getattr(probed, name)):
            raise ParityError(f"{name} of the served graph differ from those of the proved one ({trial.name})")


def _photographs(folder: Path | None, size: int) -> list[NDArray[np.uint8]]:
    """Pictures at the model's size. Raises CheckpointError for a folder without any that can be read."""
    if folder is None:
        return [resize_to_model(draw_board(seed, _BOARD_SIZE).image, size) for seed in _BOARD_SEEDS]
    names = sorted(path for path in folder.iterdir() if path.suffix.lower() in _PHOTOGRAPH_SUFFIXES)[:_PHOTOGRAPHS]
    if not names:
        raise CheckpointError(f"{folder}: no photographs (JPEG, PNG or WebP) for the parity check")
    try:
        return [resize_to_model(decode(path.read_bytes()), size) for path in names]
    except ImageError as error:
        raise CheckpointError(f"{folder}: a photograph can't be read: {error}") from error


def _manifest(
    checkpoint: Checkpoint,
    graph: ServingGraph,
    folder: Path,
    plan: ExportPlan,
    thresholds: tuple[float, ...],
    parity: dict[str, object],
) -> ModelManifest:
    files = {path.name: describe_file(path) for path in sorted(folder.iterdir())}
    digests = "".join(f"{found.sha256}  {name}\n" for name, found in files.items())
    try:
        return ModelManifest(
            format_version=FORMAT_VERSION,
            name=plan.name or _slug(plan.prompts[0]),
            version=plan.version or sha256(digests.encode()).hexdigest()[:12],
            files=files,
            file=GRAPH,
            prompts=plan.prompts,
            image_size=image_size(graph),
            mask_size=MASK_CELLS_PER_PATCH * graph.detector.grid,
            top_k=graph.top_k,
            score_thresholds=thresholds,
            nms_iou=plan.nms_iou,
            precision="fp16" if plan.precision == "fp16" else "fp32",
            opset=OPSET,
            source=ModelSource(kind=checkpoint.kind, sha256=checkpoint.sha256, name=checkpoint.name),
            libraries={name: version(name) for name in _LIBRARIES},
            parity=parity,
        )
    except ValueError as error:
        raise ModelError(f"the manifest: {error}") from error


def _thresholds(plan: ExportPlan) -> tuple[float, ...]:
    if len(plan.score_thresholds) == 1:
        return plan.score_thresholds * len(plan.prompts)
    if len(plan.score_thresholds) != len(plan.prompts):
        raise CheckpointError(f"{len(plan.score_thresholds)} thresholds for {len(plan.prompts)} prompts; one or all")
    return plan.score_thresholds


def _slug(prompt: str) -> str:
    letters = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in prompt.lower())
    return "-".join(part for part in letters.split("-") if part)[:64].rstrip("-") or "model"


def _told(figures: dict[str, object]) -> str:
    parts: Iterable[str] = (
        f"{name} differ by {found['largest']:.1e}, cosine {found['least_cosine']:.6f}"
        for name, found in figures.items()
        if isinstance(found, dict) and "least_cosine" in found
    )
    return "; ".join(parts)


def _timed(report: Callable[[str], None]) -> Callable[[str], None]:
    started = time.monotonic()
    return lambda text: report(f"[{time.monotonic() - started:5.0f} s] {text}")

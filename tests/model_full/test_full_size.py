"""SAM 3 at its full size with random weights: from a native checkpoint to a graph that runs. Takes 20 GB of memory."""

import json
import os
import resource
import time
from pathlib import Path

import onnx
import pytest
import torch
from sam3_samples import NativeLayout
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model

from fusebus.vision.export.exporter import ExportPlan, export_model


@pytest.mark.timeout(7200)
def test_the_full_size_model_exports_loads_and_runs_with_parity(tmp_path: Path) -> None:
    torch.manual_seed(0)
    started = time.monotonic()
    state = NativeLayout(Sam3Model(Sam3Config())).state
    assert len(state) == 1134  # as many as the released image model has
    torch.save({f"detector.{name}": value for name, value in state.items()}, tmp_path / "sam3.pt")
    del state
    print(f"\n[{time.monotonic() - started:5.0f} s] {(tmp_path / 'sam3.pt').stat().st_size:,} bytes of random weights")
    lines: list[str] = []

    def report(line: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        lines.append(f"{line} (peak {peak:.1f} GiB)")
        print(lines[-1], flush=True)

    plan = ExportPlan(
        ("fuse neutral",), os.environ.get("PRECISION", "fp32"), external_data=True, batches=(1,), noise=False
    )
    manifest = export_model(tmp_path / "sam3.pt", tmp_path / "model", plan, report)
    assert "1134 keys, 38 left out" in lines[0]
    assert (manifest.image_size, manifest.mask_size, manifest.top_k) == (1008, 288, 100)
    graph = onnx.load(tmp_path / "model" / manifest.file, load_external_data=False)
    attention = sum(node.op_type == "Attention" for node in graph.graph.node)
    print(f"{len(graph.graph.node)} nodes, {attention} of them Attention; {manifest.total_bytes:,} bytes")
    print(json.dumps(manifest.parity))
    assert attention >= 32

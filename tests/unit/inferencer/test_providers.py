import sys
from pathlib import Path

import onnxruntime
import pytest

from fusebus.inferencer.backends import BackendError
from fusebus.inferencer.backends.onnx import OnnxBackend, require_provider
from fusebus.inferencer.backends.providers import CPU, CUDA, TENSORRT, Accelerator, Inputs, session_providers
from fusebus.inferencer.loading import Running
from fusebus.vision import DEMO_MODEL


def test_the_cpu_gets_no_options_and_no_second_provider() -> None:
    assert session_providers(CPU) == [(CPU, {})]


def test_cuda_comes_first_with_its_device_and_graphs_only_if_asked_for() -> None:
    assert session_providers(CUDA) == [(CUDA, {"device_id": "0", "enable_cuda_graph": "0"}), (CPU, {})]
    (_, options), _ = session_providers(CUDA, Accelerator(device=2, cuda_graph=True))
    assert options == {"device_id": "2", "enable_cuda_graph": "1"}


def test_tensorrt_falls_back_to_cuda_for_single_nodes_and_keeps_engines_where_told(tmp_path: Path) -> None:
    wanted = Accelerator(device=1, cuda_graph=True, engine_cache=tmp_path)
    (first, options), (second, cuda), (third, _) = session_providers(TENSORRT, wanted, Inputs(1008, 8, True))
    assert (first, second, third) == (TENSORRT, CUDA, CPU)
    assert cuda == {"device_id": "1"}
    assert options == {
        "device_id": "1",
        "trt_cuda_graph_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
        "trt_profile_min_shapes": "images:1x1008x1008x3",
        "trt_profile_opt_shapes": "images:8x1008x1008x3",
        "trt_profile_max_shapes": "images:8x1008x1008x3",
        "trt_fp16_enable": "1",
    }


def test_without_a_cache_tensorrt_writes_nothing() -> None:
    (_, options), *_ = session_providers(TENSORRT, Accelerator(), Inputs(224, 4, False))
    assert not [name for name in options if "cache" in name]
    assert options["trt_fp16_enable"] == "0"


@pytest.mark.parametrize(
    ("provider", "wanted", "match"),
    [
        (CPU, Accelerator(cuda_graph=True), "CUDA graphs were asked for on CPUExecutionProvider"),
        (CPU, Accelerator(engine_cache=Path("engines")), "an engine cache was given to CPUExecutionProvider"),
        (CUDA, Accelerator(engine_cache=Path("engines")), "an engine cache was given to CUDAExecutionProvider"),
    ],
)
def test_options_that_would_be_ignored_are_an_error(provider: str, wanted: Accelerator, match: str) -> None:
    with pytest.raises(BackendError, match=match):
        OnnxBackend(DEMO_MODEL / "model.onnx", provider, 1, wanted)


@pytest.mark.parametrize(("provider", "extra"), [(CUDA, "gpu"), (TENSORRT, "tensorrt")])
def test_a_provider_that_is_not_at_hand_is_an_error_with_the_way_out(provider: str, extra: str) -> None:
    if provider in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime knows {provider}")
    with pytest.raises(BackendError, match=rf"{provider} was asked for.*fusebus-inferencer\[{extra}\]"):
        OnnxBackend(DEMO_MODEL / "model.onnx", provider, 1)


def test_tensorrt_that_fell_back_to_cuda_is_an_error_too() -> None:
    with pytest.raises(BackendError, match="fell back to CUDAExecutionProvider"):
        require_provider(TENSORRT, [CUDA, CPU])


def test_a_trial_builds_no_engine() -> None:
    def running(provider: str) -> Running:
        return Running(provider=provider, intra_op_threads=1, max_batch=4, warm_up=False)

    assert [running(provider).trial_provider for provider in (CPU, CUDA, TENSORRT)] == [CPU, CUDA, CUDA]


def test_these_decisions_load_no_runtime() -> None:
    import subprocess

    code = "import sys, fusebus.inferencer.backends.providers; assert 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""`fusebus model export`: the folder it leaves, what the graph in it computes, and that nothing unproved is left."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from sam3_samples import NEUTRAL, NativeLayout, random_model, small_config

from fusebus.models import load_manifest
from fusebus.models.inspection import inspect_graph
from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board
from fusebus.vision.export import exporter
from fusebus.vision.export.commands import export
from fusebus.vision.export.errors import ParityError
from fusebus.vision.export.exporter import ExportPlan, export_model
from fusebus.vision.export.onnx_export import run_torch
from fusebus.vision.export.parity import FP32_LIMITS, Probe, Trial, compare, prove, trials
from fusebus.vision.export.sam3 import Sam3Detector, ServingGraph

pytestmark = pytest.mark.timeout(600)  # an export takes half a minute of two quiet cores

METER = (49406, 10104, 49407)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native trainer's checkpoint of the smallest model with all parts, its config.json in a folder beside it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = random_model(small_config(layers=1))
    model.config.save_pretrained(folder / "architecture")
    torch.save({"model": NativeLayout(model).state, "epoch": 50}, folder / "checkpoint_epoch_50.pth")
    return folder / "checkpoint_epoch_50.pth"


def run(checkpoint: Path, *arguments: str | Path) -> Result:
    config = checkpoint.parent / "architecture" / "config.json"
    return CliRunner().invoke(export, [str(checkpoint), "--config", str(config), *map(str, arguments)])


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Two prompts, photographs of the user's, weights in a file of their own."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "photos").mkdir()
    for seed in (1, 2):
        (folder / "photos" / f"{seed}.jpg").write_bytes(encode_jpeg(draw_board(seed, (320, 240)).image, 90))
    prompts = ("--prompt", "fuse neutral", "--prompt", "meter")
    options = ("--external-data", "--photos", folder / "photos", "--top-k", "10", "--threshold", "0.3")
    return folder / "model", run(checkpoint, *prompts, *options, "--threshold", "0.4", "--out", folder / "model")


def test_the_command_says_what_it_took_and_leaves_a_model_that_serving_accepts(exported: tuple[Path, Result]) -> None:
    folder, result = exported
    assert result.exit_code == 0, result.output
    assert "recognised checkpoint_epoch_50.pth: native trainer in PyTorch ['model']" in result.output
    assert "prompt 'fuse neutral' has tokens [49406, 23386, 17011, 49407]" in result.output
    manifest = load_manifest(folder)
    assert sorted(manifest.files) == ["model.onnx", "model.onnx.data"]
    assert manifest.ref in result.output
    assert (manifest.name, len(manifest.version)) == ("fuse-neutral", 12)
    assert manifest.prompts == ("fuse neutral", "meter")
    assert manifest.score_thresholds == (0.3, 0.4)
    assert (manifest.image_size, manifest.mask_size, manifest.top_k) == (112, 32, 10)
    assert (manifest.precision, manifest.opset) == ("fp32", 23)
    assert manifest.source is not None
    assert manifest.source.name == "checkpoint_epoch_50.pth"
    assert "torch" in manifest.libraries
    assert inspect_graph(folder, manifest).has_classes
    assert [entry.name for entry in folder.parent.iterdir() if entry.name.startswith(".")] == []


def test_the_manifest_holds_the_parity_figures(exported: tuple[Path, Result]) -> None:
    parity = load_manifest(exported[0]).parity
    assert parity["trials"] == [f"{kind}, batch {n}" for n in (1, 2, 4) for kind in ("photographs", "random")]
    for name, limit in FP32_LIMITS.items():
        assert 0 <= parity[name]["largest"] <= limit
    assert parity["served"]["mask_steps"] <= 1


def test_the_graph_is_opset_23_with_a_dynamic_batch_and_names_no_file_of_this_machine(
    exported: tuple[Path, Result],
) -> None:
    folder, _ = exported
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", 23)]
    image = graph.graph.input[0]
    assert (image.name, image.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert image.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [output.name for output in graph.graph.output] == ["scores", "boxes", "masks", "classes"]
    assert graph.graph.output[3].type.tensor_type.elem_type == onnx.TensorProto.INT64
    assert sum(node.op_type == "Attention" for node in graph.graph.node) >= 10
    assert b"site-packages" not in (folder / "model.onnx").read_bytes()
    assert str(Path.cwd()).encode() not in (folder / "model.onnx").read_bytes()


def test_several_prompts_are_several_classes_of_one_best_list(exported: tuple[Path, Result], checkpoint: Path) -> None:
    """Each prompt alone in torch, put together by hand, is what the one graph gives."""
    session = onnxruntime.InferenceSession(exported[0] / "model.onnx", providers=["CPUExecutionProvider"])
    images = np.random.default_rng(5).integers(0, 256, (3, 112, 112, 3), np.uint8)
    scores, boxes, masks, classes = session.run(None, {"images": images})
    single = [
        run_torch(ServingGraph(Sam3Detector(random_model(small_config(layers=1)), tokens).eval(), 8), images)
        for tokens in (NEUTRAL, METER)
    ]
    for picture in range(3):
        together = [
            (float(one.scores[picture, rank]), number, rank) for number, one in enumerate(single) for rank in range(8)
        ]
        for place, (score, number, rank) in enumerate(sorted(together, reverse=True)[:10]):
            assert scores[picture, place] == pytest.approx(score, abs=1e-5)
            assert classes[picture, place] == number
            np.testing.assert_allclose(boxes[picture, place], single[number].boxes[picture, rank], atol=1e-5)
            difference = masks[picture, place].astype(int) - single[number].masks[picture, rank]
            assert np.abs(difference).max() <= 1
    assert set(classes.ravel()) == {0, 1}


def test_half_precision_keeps_its_cosine_and_is_half_as_large(checkpoint: Path, tmp_path: Path) -> None:
    result = run(
        checkpoint,
        "--prompt",
        "fuse neutral",
        "--precision",
        "fp16",
        "--out",
        tmp_path / "half",
        "--top-k",
        6,
        "--json",
    )
    assert result.exit_code == 0, result.output
    manifest = load_manifest(tmp_path / "half")
    told = json.loads(result.stdout)
    assert told == {"model": manifest.ref, "folder": str(tmp_path / "half"), "parity": manifest.parity}
    assert "recognised" in result.stderr
    assert manifest.precision == "fp16"
    assert sorted(manifest.files) == ["model.onnx"]
    assert all(manifest.parity[name]["least_cosine"] >= 0.999 for name in ("scores", "boxes", "masks"))
    graph = onnx.load(tmp_path / "half" / "model.onnx")
    tensors = {one.name: one.data_type for one in graph.graph.initializer}
    heavy = [node for node in graph.graph.node if node.op_type in {"MatMul", "Gemm", "Conv", "ConvTranspose"}]
    kinds = {tensors[name] for node in heavy for name in node.input if name in tensors}
    assert kinds == {onnx.TensorProto.FLOAT16}  # float32 constants (rotary tables) are no weights


def test_a_graph_that_computes_something_else_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph is written that forgets the geometry token's share of the prompt: what a wrong export would look like."""
    written = exporter.write_probed

    def wrong(graph: ServingGraph, folder: Path, external_data: bool = False) -> Path:
        with torch.no_grad():
            graph.detector.model.geometry_encoder.cls_embed.weight.zero_()
        return written(graph, folder, external_data)

    monkeypatch.setattr(exporter, "write_probed", wrong)
    config = checkpoint.parent / "architecture" / "config.json"
    plan = ExportPlan(("fuse neutral",), config=config, batches=(1,), noise=False)
    with pytest.raises(ParityError, match=r"does not compute what torch computes \(photographs, batch 1\): scores"):
        export_model(checkpoint, tmp_path / "model", plan, lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_wrong_wishes_are_refused_before_any_work(checkpoint: Path, tmp_path: Path) -> None:
    prompt = ("--prompt", "fuse neutral", "--out", tmp_path / "new")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (tmp_path / "no-photos").mkdir()
    for arguments, reason in (
        (("--prompt", "a", "--out", tmp_path / "taken"), "exists and is not empty"),
        ((*prompt, "--top-k", "9"), "top-k 9: the model has 8 queries for each of 1 prompts"),
        ((*prompt, "--image-size", "100"), "must be a multiple of 14"),
        ((*prompt, "--photos", tmp_path / "no-photos"), "no photographs"),
        ((*prompt, "--threshold", "0.1", "--threshold", "0.2"), "2 thresholds for 1 prompts"),
        ((*prompt, "--weights", "ema"), "has no 'ema', it has model, epoch"),
    ):
        result = run(checkpoint, *arguments)
        assert result.exit_code == 1
        assert reason in result.output
    assert not (tmp_path / "new").exists()


def probe(scores: list[float], picked: list[int]) -> Probe:
    """One picture's detections whose boxes and masks follow from the query."""
    number = np.array([picked], np.int64)
    values = (number / 10).astype(np.float32)
    return Probe(
        scores=np.array([scores], np.float32),
        boxes=np.repeat(values[..., None], 4, axis=2),
        masks=np.repeat(number.astype(np.uint8)[..., None, None], 2, axis=2),
        classes=np.zeros_like(number),
        picked=number,
        probabilities=values[..., None, None],
    )


TRIAL = Trial("photographs", np.zeros((1, 14, 14, 3), np.uint8))


def test_near_equal_detections_may_swap_places_and_the_last_may_be_another() -> None:
    one, other = probe([0.9, 0.5, 0.5, 0.3], [1, 2, 3, 4]), probe([0.9, 0.5, 0.5, 0.3], [1, 3, 2, 5])
    found = compare(one, other)
    assert found.largest == {"scores": 0, "boxes": 0, "masks": 0}
    assert (found.missed, found.mask_steps, found.wrong) == (0, 0, ())
    prove("fp32", [(TRIAL, one, other)])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (probe([0.9, 0.50001, 0.5, 0.3], [1, 2, 3, 4]), "scores differ by 1.00e-05, at most 1e-06"),
        (probe([0.9, 0.5, 0.5, 0.31], [1, 2, 3, 5]), "scores differ by 1.00e-02"),
        (probe([0.5, 0.9, 0.5, 0.3], [2, 1, 3, 4]), "the scores don't fall"),
        (probe([0.9, 0.5, 0.5, float("nan")], [1, 2, 3, 4]), "an output is not a number"),
        (probe([0.9, 0.5, 0.5, 0.3], [5, 6, 7, 8]), "scores differ by inf"),
    ],
)
def test_what_is_past_a_limit_fails_the_proof(other: Probe, reason: str) -> None:
    with pytest.raises(ParityError, match=reason):
        prove("fp32", [(TRIAL, probe([0.9, 0.5, 0.5, 0.3], [1, 2, 3, 4]), other)])


def test_half_precision_is_judged_by_cosine_and_by_what_it_misses() -> None:
    one = probe([0.9, 0.5, 0.5, 0.3], [1, 2, 3, 4])
    figures = prove("fp16", [(TRIAL, one, probe([0.89, 0.51, 0.5, 0.31], [1, 2, 3, 5]))])
    assert json.loads(json.dumps(figures))["limits"] == {"cosine": 0.999}
    with pytest.raises(ParityError, match=r"misses the best by a score of 0.0500"):
        prove("fp16", [(TRIAL, one, probe([0.9, 0.5, 0.5, 0.35], [1, 2, 3, 5]))])
    with pytest.raises(ParityError, match="scores have cosine"):
        prove("fp16", [(TRIAL, one, probe([0.9, 0.5, 0.3, 0.1], [2, 3, 1, 4]))])


def test_too_few_photographs_are_repeated() -> None:
    photos = [np.full((14, 14, 3), value, np.uint8) for value in (1, 2, 3)]
    found = trials(photos)
    assert [one.name for one in found][:3] == ["photographs, batch 1", "random, batch 1", "photographs, batch 2"]
    assert found[4].images[:, 0, 0, 0].tolist() == [1, 2, 3, 1]

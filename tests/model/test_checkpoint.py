"""Which checkpoints are taken, that the weights in them are the original's to the bit, and why others are refused."""

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sam3_samples import NEUTRAL, NativeLayout, random_model, small_config
from torch import Tensor
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model

from fusebus.vision.export.checkpoint import load_checkpoint
from fusebus.vision.export.errors import CheckpointError
from fusebus.vision.export.native import translate
from fusebus.vision.export.sam3 import Sam3Detector

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> Sam3Model:
    return random_model(small_config())


@pytest.fixture(scope="module")
def native(model: Sam3Model) -> Weights:
    return NativeLayout(model).state


@pytest.fixture
def config(model: Sam3Model, tmp_path: Path) -> Path:
    (tmp_path / "architecture").mkdir()
    model.config.save_pretrained(tmp_path / "architecture")
    return tmp_path / "architecture" / "config.json"


def with_prefix(state: Weights, prefix: str) -> Weights:
    return {f"{prefix}{name}": value for name, value in state.items()}


def same_weights(one: Sam3Model, other: Sam3Model) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


NATIVE_FORMS: dict[str, Callable[[Weights], object]] = {
    "released": lambda state: {
        **with_prefix(state, "detector."),
        "detector.backbone.vision_backbone.sam2_convs.0.conv_1x1.weight": torch.zeros(1),
        "tracker.transformer.encoder.layers.0.norm1.weight": torch.zeros(1),
    },
    "released, in model": lambda state: {"model": with_prefix(state, "detector.")},
    "trainer": lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.zeros(())}}}, "epoch": 50},
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "best": 0.9},
    "ema": lambda state: {"ema": {"module": state}, "epoch": 3},
    "averaged": lambda state: {"model": {**with_prefix(state, "module."), "n_averaged": torch.tensor(7)}},
    "data parallel": lambda state: {"model": with_prefix(state, "module.")},
    "compiled": lambda state: with_prefix(state, "_orig_mod."),
    "compiled, data parallel": lambda state: {"state_dict": with_prefix(state, "module._orig_mod.")},
    "compiled trunk": lambda state: {name.replace(".trunk.", ".trunk._orig_mod."): v for name, v in state.items()},
}


@pytest.mark.parametrize("form", NATIVE_FORMS)
def test_every_native_form_gives_the_original_weights(
    form: str, model: Sam3Model, native: Weights, config: Path, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint_epoch_50.pth"
    torch.save(NATIVE_FORMS[form](native), path)
    found = load_checkpoint(path, config)
    assert same_weights(found.model, model)
    assert found.kind.startswith("native released" if form.startswith("released") else "native trainer")
    assert found.recognised.startswith("checkpoint_epoch_50.pth: native")
    assert "8 left out that nothing needs" in found.recognised
    assert ("2 of the tracker ignored" in found.recognised) == (form == "released")


def test_native_weights_compute_the_same_bits(model: Sam3Model, native: Weights, config: Path, tmp_path: Path) -> None:
    save_file(
        {name: value for name, value in native.items() if not value.is_complex()}, tmp_path / "native.safetensors"
    )
    found = load_checkpoint(tmp_path / "native.safetensors", config)
    assert {weight.data_ptr() % 64 for weight in found.model.parameters()} == {0}, (
        "some processors sum in another order"
    )
    pixels = torch.rand(2, 3, 112, 112) * 2 - 1
    ours, theirs = (Sam3Detector(one, NEUTRAL).eval() for one in (found.model, model))
    with torch.no_grad():
        mine, original = (one(pixels, one.text_features()) for one in (ours, theirs))
    for field in fields(mine):
        assert torch.equal(getattr(mine, field.name), getattr(original, field.name)), field.name


def test_the_full_size_layout_translates_without_a_key_missing_or_left_over() -> None:
    with torch.device("meta"):
        full = Sam3Model(Sam3Config())
        native = NativeLayout(full).state
    found = translate(native)
    assert len(native) == 1134
    assert len(found.dropped) == 38
    assert not found.unknown
    assert {name: value.shape for name, value in found.state.items()} == {
        name: value.shape for name, value in full.state_dict().items()
    }


def test_a_transformers_folder_and_its_file_are_taken(model: Sam3Model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "whole")
    assert same_weights(load_checkpoint(tmp_path / "whole").model, model)
    assert same_weights(load_checkpoint(tmp_path / "whole" / "model.safetensors").model, model)
    model.save_pretrained(tmp_path / "parts", max_shard_size="2MB")
    parts = load_checkpoint(tmp_path / "parts")
    assert same_weights(parts.model, model)
    assert re.search(r"transformers folder, \d+ parts", parts.recognised)


def test_a_folder_with_tracker_gives_its_detector(model: Sam3Model, tmp_path: Path) -> None:
    state = {**with_prefix(model.state_dict(), "detector_model."), "tracker_neck.x": torch.zeros(1)}
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "model.safetensors")
    video = {"model_type": "sam3_video", "detector_config": model.config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(video))
    found = load_checkpoint(tmp_path)
    assert same_weights(found.model, model)
    assert "1 of the tracker ignored" in found.recognised


def test_another_image_size_keeps_the_weights_and_a_wrong_one_names_the_nearest(
    model: Sam3Model, native: Weights, config: Path, tmp_path: Path
) -> None:
    torch.save(native, tmp_path / "a.pth")
    found = load_checkpoint(tmp_path / "a.pth", config, image_size=140)
    assert same_weights(found.model, model)
    detector = Sam3Detector(found.model, NEUTRAL).eval()
    with torch.no_grad():
        assert detector(torch.zeros(1, 3, 140, 140), detector.text_features()).pixels.shape[-2:] == (40, 40)
    with pytest.raises(CheckpointError, match=r"multiple of 14.*the nearest is 140"):
        load_checkpoint(tmp_path / "a.pth", config, image_size=142)


class Malicious:
    """Would write a file when it is unpickled by a reader that runs what it reads."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.victim, "owned")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(zipped: bool, native: Weights, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    content = {"model": dict(list(native.items())[:3]), "args": Malicious(victim)}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"the pickle calls .*holds code, not only weights, and was not run"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not victim.exists()
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Malicious(victim)))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "bare.pt")
    assert not victim.exists()


REFUSED: dict[str, tuple[Callable[[Weights], object], str]] = {
    "missing": (
        lambda state: {k: v for k, v in state.items() if "presence_token." not in k},
        r"1 keys are missing .*detr_decoder\.presence_token\.weight",
    ),
    "unexpected": (
        lambda state: {**state, "transformer.decoder.instance_query_embed.weight": torch.zeros(2)},
        r"1 keys are unexpected: .*instance_query_embed",
    ),
    "of no part": (lambda state: {**state, "mystery.weight": torch.zeros(2)}, "1 keys are unexpected: mystery.weight"),
    "no mask head": (
        lambda state: {k: v for k, v in state.items() if not k.startswith("segmentation_head.")},
        "no mask head .*leaves segmentation off by default.*enable_segmentation",
    ),
    "other size": (
        lambda state: {**state, "transformer.decoder.query_embed.weight": torch.zeros(9, 32)},
        r"1 weights have another size: transformer.decoder.query_embed.weight gives .*\(9, 32\), needed is \(8, 32\)",
    ),
    "not a number": (
        lambda state: {**state, "geometry_encoder.norm.weight": torch.full((32,), float("nan"))},
        "hold values that are no numbers: geometry_encoder.norm.weight",
    ),
    "LoRA": (
        lambda state: {**state, "transformer.encoder.layers.0.self_attn.lora_A.weight": torch.zeros(2)},
        "LoRA weights: a change to a model.*merge_and_unload",
    ),
    "two sets": (lambda state: {"model": state, "ema": state}, "several sets of weights .model, ema.*--weights model"),
    "no weights": (lambda state: {"epoch": 3, "lr": 1e-4}, "no weights in it; it has epoch, lr"),
    "another model": (lambda state: {"fc.weight": torch.zeros(2, 2)}, "not SAM 3 in any form known here.*fc.weight"),
    "a list": (lambda state: [1, 2], "holds a list, not a dictionary of weights"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_refused_with_the_reason(what: str, native: Weights, config: Path, tmp_path: Path) -> None:
    change, reason = REFUSED[what]
    torch.save(change(native), tmp_path / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=f"checkpoint.pth.*{reason}"):
        load_checkpoint(tmp_path / "checkpoint.pth", config)


def test_the_asked_for_set_of_weights_is_taken(native: Weights, model: Sam3Model, config: Path, tmp_path: Path) -> None:
    other = {name: torch.zeros_like(value) for name, value in native.items()}
    torch.save({"model": other, "ema": native}, tmp_path / "both.pth")
    assert same_weights(load_checkpoint(tmp_path / "both.pth", config, "ema").model, model)
    with pytest.raises(CheckpointError, match="has no 'best', it has model, ema"):
        load_checkpoint(tmp_path / "both.pth", config, "best")


def test_a_small_model_without_its_configuration_is_told_about_it(native: Weights, tmp_path: Path) -> None:
    torch.save(native, tmp_path / "small.pth")
    with pytest.raises(CheckpointError, match=r"keys are missing.*another size.*needs its config.json: --config FILE"):
        load_checkpoint(tmp_path / "small.pth")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_file_cut_short_is_recognised(share: float, native: Weights, tmp_path: Path) -> None:
    torch.save(native, tmp_path / "whole.pth")
    save_file({name: value for name, value in native.items() if not value.is_complex()}, tmp_path / "whole.safetensors")
    for name in ("whole.pth", "whole.safetensors"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(CheckpointError, match="cut short"):
            load_checkpoint(tmp_path / f"cut-{name}")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "a.pth").write_bytes(b"x")
    (tmp_path / "config-only").mkdir()
    (tmp_path / "config-only" / "config.json").write_text(json.dumps({"model_type": "sam3"}))
    (tmp_path / "nothing.pth").touch()
    (tmp_path / "text.pth").write_text("weights, honestly")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    for name, reason in {
        "empty": "the folder is empty",
        "adapter": "LoRA weights",
        "other": "type 'bert', not 'sam3'",
        "file": "has no config.json; give the file itself: .*a.pth",
        "config-only": "but no model.safetensors or pytorch_model.bin",
        "nothing.pth": "the file is empty",
        "text.pth": "neither a PyTorch checkpoint nor safetensors",
        "pointer.pth": "git lfs pull",
        "absent.pth": "no such file",
    }.items():
        with pytest.raises(CheckpointError, match=reason):
            load_checkpoint(tmp_path / name)


def test_an_index_that_names_files_elsewhere_is_refused(model: Sam3Model, tmp_path: Path) -> None:
    model.config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    with pytest.raises(CheckpointError, match="names files outside its folder"):
        load_checkpoint(tmp_path)

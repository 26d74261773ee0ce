"""Fine-tuning on a COCO folder through the command line, with its state in blob storage. Needs torch and Azurite."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fusebus.blobs import BlobSettings
from fusebus.host.settings import environment_of
from fusebus.vision.export.coco import write_coco
from fusebus.vision.export.demo_model import new_model
from fusebus.vision.export.evaluate import board_samples
from fusebus.vision.export.sam3 import TINY_PROMPT_TOKENS, load_model
from fusebus.vision.export.tokens import save_prompt_tokens
from fusebus.vision.export.training_commands import train
from fusebus.vision.export.training_state import STATE

pytestmark = pytest.mark.timeout(600)  # each process takes up to 15 s to import torch and transformers


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_coco(tmp_path / "data", board_samples(range(800_000, 800_004), 0.02), {1: "fuse neutral"})
    return tmp_path / "data"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    new_model(112).save_pretrained(tmp_path / "checkpoint")
    save_prompt_tokens(tmp_path / "checkpoint", {"fuse neutral": TINY_PROMPT_TOKENS})
    return tmp_path / "checkpoint"


def options(data: Path, checkpoint: Path, out: Path) -> list[str]:
    return ["--data", str(data), "--from", str(checkpoint), "--out", str(out), "--batch", "2"]


def test_a_checkpoint_is_fine_tuned_on_a_coco_folder_into_one_that_can_be_exported(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(train, [*options(data, checkpoint, tmp_path / "tuned"), "--steps", "3", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"complete": True, "folder": str(tmp_path / "tuned"), "steps": 3}
    tuned, before = load_model(tmp_path / "tuned"), load_model(checkpoint)
    assert any(not torch.equal(a, b) for a, b in zip(tuned.parameters(), before.parameters(), strict=True))
    assert "fuse neutral" in json.loads((tmp_path / "tuned" / "prompt_tokens.json").read_text())


@pytest.mark.parametrize(
    ("prompt", "reason"), [("meter", "no category 'meter'"), ("fuse neutral", "not one instance")], ids=str
)
def test_what_is_wrong_with_the_data_is_one_sentence(
    data: Path, checkpoint: Path, tmp_path: Path, prompt: str, reason: str
) -> None:
    annotations = json.loads((data / "annotations.json").read_text())
    annotations["categories"].append({"id": 2, "name": "cover"})
    annotations["annotations"] = []
    (data / "annotations.json").write_text(json.dumps(annotations))
    save_prompt_tokens(checkpoint, {"fuse neutral": TINY_PROMPT_TOKENS, "meter": TINY_PROMPT_TOKENS})
    result = CliRunner().invoke(train, [*options(data, checkpoint, tmp_path / "tuned"), "--prompt", prompt])
    assert result.exit_code == 1
    assert reason in result.output


def test_an_evicted_training_goes_on_elsewhere_from_its_state_in_blob_storage(
    data: Path, checkpoint: Path, tmp_path: Path, blob_settings: BlobSettings, supplier: str
) -> None:
    environment = environment_of(blob_settings, "blobs")
    arguments = ["--steps", "12", "--checkpoints", f"supplier-{supplier}/run-7", "--checkpoint-seconds", "0"]
    code = "from fusebus.vision.export.training_commands import train; train()"
    command = [sys.executable, "-c", code, *options(data, checkpoint, tmp_path / "first"), *arguments]
    first = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "first" / STATE).exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    assert first.wait(120) == 143
    stopped_at = torch.load(tmp_path / "first" / STATE, weights_only=True)["step"]
    assert 0 < stopped_at < 12
    elsewhere = [*options(data, checkpoint, tmp_path / "second"), *arguments]
    result = CliRunner(env=environment).invoke(train, elsewhere)
    assert result.exit_code == 0, result.output
    assert f"going on from supplier-{supplier}/run-7/state-{stopped_at:08}.pt" in result.output
    assert torch.load(tmp_path / "second" / STATE, weights_only=True)["step"] == 12

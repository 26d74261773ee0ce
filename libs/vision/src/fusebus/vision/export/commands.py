"""Owns the command `fusebus model export`."""

import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click

_NEEDED = ("torch", "transformers", "onnx", "onnxscript", "onnxslim", "onnxruntime")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--prompt", "prompts", multiple=True, required=True, help="What to find; several make several classes.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New folder for the model.")
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True)
@click.option("--image-size", type=int, help="Edge of the input in pixels [default: the checkpoint's own, 1008].")
@click.option("--top-k", type=click.IntRange(min=1), help="Detections per picture over all classes [default: 100].")
@click.option(
    "--threshold",
    "thresholds",
    type=click.FloatRange(0, 1),
    multiple=True,
    default=(0.3,),
    show_default=True,
    help="Least score of a detection, for all classes or repeated for each in the order of the prompts.",
)
@click.option(
    "--nms-iou", type=click.FloatRange(0, 1), default=0.6, show_default=True, help="Boxes that overlap more are one."
)
@click.option("--name", help="Of the model [default: after the first prompt].")
@click.option("--version", help="Of the model [default: the first 12 digits of its files' digest].")
@click.option("--external-data", is_flag=True, help="Weights in a file of their own (always beyond 2 GB).")
@click.option(
    "--photos",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with photographs for the parity check [default: generated ones].",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with the tokenizer, if the checkpoint's is not CLIP's and not beside it.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="config.json of the architecture, if a file with weights is not the released one's.",
)
@click.option("--weights", help="Which of several sets in the file to take, for example ema.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; progress goes to standard error.")
def export(
    checkpoint: Path,
    prompts: tuple[str, ...],
    out: Path,
    precision: str,
    image_size: int | None,
    top_k: int | None,
    thresholds: tuple[float, ...],
    nms_iou: float,
    name: str | None,
    version: str | None,
    external_data: bool,
    photos: Path | None,
    tokenizer: Path | None,
    config: Path | None,
    weights: str | None,
    as_json: bool,
) -> None:
    """Make a model that can be served of CHECKPOINT, proved to compute the same.

    CHECKPOINT is a transformers folder, a safetensors file, or a .pt or .pth of facebookresearch/sam3 or its trainer.
    No code in it is run. The graph's outputs are compared with torch's on photographs and noise; --out exists
    afterwards only if they are the same.

    \b
    Example: fusebus model export checkpoint_epoch_50.pth --prompt "fuse neutral" --precision fp16 --out out/model
    Exit codes: 0 exported and proved; 1 checkpoint refused, or the graph differs; 2 usage.
    """
    if missing := [module for module in _NEEDED if find_spec(module) is None]:
        raise click.ClickException(
            f"{', '.join(missing)} not installed: `pip install 'fusebus-vision[export]'` on the machine that exports"
        )
    # torch takes seconds to import: not before it is needed.
    from fusebus.models import ModelError
    from fusebus.vision.export.errors import CheckpointError, ParityError
    from fusebus.vision.export.exporter import ExportPlan, export_model

    plan = ExportPlan(
        prompts,
        precision,
        image_size,
        top_k,
        thresholds,
        nms_iou,
        external_data,
        photos,
        config,
        tokenizer,
        weights,
        name,
        version,
    )
    try:
        manifest = export_model(checkpoint, out, plan, partial(click.echo, err=as_json))
    except (CheckpointError, ParityError, ModelError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"model": manifest.ref, "folder": str(out), "parity": manifest.parity}))
    else:
        click.echo(f"{manifest.ref} is in {out}; next: fusebus model push {out}")

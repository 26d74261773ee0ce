"""Owns `fusebus model train` and `fusebus model evaluate`; imports torch and its like only when they run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fusebus.vision.export.checkpoints import CheckpointStore
    from fusebus.vision.export.training import Start, TrainingPlan

_FOLDER = click.Path(file_okay=False, path_type=Path)
_DEMO_FINISH_STEPS = 1500
_MISSING = "fusebus model {command} needs what the services don't: install torch, then fusebus-vision[export] ({name})"


@click.command()
@click.option("--out", type=_FOLDER, required=True, help="Folder for the state of the training and for its result.")
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="COCO folder to learn from."
)
@click.option("--from", "checkpoint", type=click.Path(exists=True, path_type=Path), help="Checkpoint to fine-tune.")
@click.option("--demo", is_flag=True, help="Train the demo model from nothing on synthetic boards instead.")
@click.option("--prompt", default="fuse neutral", show_default=True, help="What to find; also the data's category.")
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Default: 1000; for the demo model 7200, the last 1500 at 280 pixels. Given, all of them are at 224 there.",
)
@click.option("--batch", type=click.IntRange(1), help="Pictures per step; default: 16 for the demo model, else 2.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="At its peak; default: 1.5e-3 or 2e-5.")
@click.option(
    "--boards",
    type=click.IntRange(1),
    default=5000,
    show_default=True,
    help="With --demo: how many, beside the finish's.",
)
@click.option("--seed", default=0, show_default=True, help="Of weights, order and variation.")
@click.option("--processes", type=click.IntRange(1), help="Which share each batch; default: 2 for --demo, else 1.")
@click.option("--checkpoint-seconds", default=60.0, show_default=True, help="Between two writes of the state.")
@click.option(
    "--checkpoints", help="CONTAINER/PREFIX in blob storage that the state is kept in, too, and resumed from."
)
@click.option("--settings", "settings_file", type=click.Path(dir_okay=False, path_type=Path), help="TOML with [blobs].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; progress goes to standard error.")
def train(
    out: Path,
    data: Path | None,
    checkpoint: Path | None,
    demo: bool,
    prompt: str,
    steps: int | None,
    batch: int | None,
    learning_rate: float | None,
    boards: int,
    seed: int,
    processes: int | None,
    checkpoint_seconds: float,
    checkpoints: str | None,
    settings_file: Path | None,
    as_json: bool,
) -> None:
    """Fine-tune a checkpoint on a COCO folder (JSON with polygons or run lengths, beside its images), or make the demo
    model. The result in --out is a transformers folder that `fusebus model export` takes.

    SIGTERM ends it after the step in hand, with its state kept; the same command goes on from there, to the very bit.

    \b
    Example: fusebus model train --data photos --from checkpoint_epoch_50.pth --out tuned --checkpoints training/run-7
    Exit codes: 0 complete, 1 not possible (the reason is named), 2 usage, 143 interrupted and kept.
    """
    if demo == (data is not None):
        raise click.UsageError("name either --data and --from, or --demo")
    if data is not None and checkpoint is None:
        raise click.UsageError("--data needs --from: the checkpoint to fine-tune")
    with _told("train"):
        from fusebus.vision.export.checkpoints import open_store
        from fusebus.vision.export.training import TrainingPlan

        usual = (7200, 16, 1.5e-3, 2) if demo else (1000, 2, 2e-5, 1)
        plan = TrainingPlan(
            steps=steps or usual[0],
            batch=batch or usual[1],
            mask_rows=6 if demo else batch or usual[1],
            learning_rate=learning_rate or usual[2],
            processes=processes or usual[3],
            finish_steps=0 if steps or not demo else _DEMO_FINISH_STEPS,
            kinds_share=0.3 if demo else 0.0,
            grid_share=0.55 if demo else 0.0,
            seed=seed,
            checkpoint_seconds=checkpoint_seconds,
        )
        store = open_store(checkpoints, settings_file) if checkpoints else None
        wish = _Wish(out, data, checkpoint, prompt, boards, seed, partial(click.echo, err=as_json))
        complete = _trained(wish, plan, store)
    if as_json:
        click.echo(json.dumps({"complete": complete, "folder": str(out), "steps": plan.steps}))
    elif complete:
        click.echo(f"complete: {out}")
    else:
        click.echo(f"interrupted; its state is in {out}, the same command goes on from there")
    raise SystemExit(0 if complete else 143)


@dataclass(frozen=True)
class _Wish:
    out: Path
    data: Path | None
    checkpoint: Path | None
    prompt: str
    boards: int
    seed: int
    report: Callable[[str], None]


def _trained(wish: _Wish, plan: TrainingPlan, store: CheckpointStore | None) -> bool:
    from fusebus.vision.export.training import train as run

    wish.out.mkdir(parents=True, exist_ok=True)
    if store is not None and (found := store.fetch(wish.out)):
        wish.report(f"going on from {found}")
    start = _start(wish, plan)
    if store is None:
        return run(plan, start, wish.out, wish.report)
    with store.uploading() as keep:
        return run(plan, start, wish.out, wish.report, keep)


def _start(wish: _Wish, plan: TrainingPlan) -> Start:
    from fusebus.vision.export.tokens import save_prompt_tokens

    if wish.data is None:
        from fusebus.vision.export.demo_model import FINISH_BOARDS, demo_start

        finish_boards = FINISH_BOARDS if plan.finish_steps else 0
        wish.report(
            f"drawing {wish.boards} boards" + (f", and {finish_boards} for the finish" if finish_boards else "")
        )
        start = demo_start(
            wish.out, boards=wish.boards, finish_boards=finish_boards, seed=wish.seed, processes=plan.processes
        )
    else:
        from fusebus.vision.export.fine_tuning import fine_tuning_start

        assert wish.checkpoint is not None
        start = fine_tuning_start(wish.checkpoint, wish.data, wish.prompt)
    save_prompt_tokens(wish.out, {wish.prompt: start.tokens})
    return start


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", type=_FOLDER, help="COCO folder; with --boards: where to keep the boards, drawn if it is new.")
@click.option("--boards", type=click.IntRange(1), help="Measure on this many synthetic boards of 1 to 12 megapixels.")
@click.option("--first-seed", default=100_000, show_default=True, help="Of the boards.")
@click.option(
    "--megapixels", default=12.0, show_default=True, help="Draw boards no larger than this: smaller is faster."
)
@click.option(
    "--out", type=_FOLDER, default=Path("evaluation"), show_default=True, help="Folder for the worst pictures."
)
@click.option("--worst", default=12, show_default=True, type=click.IntRange(0), help="How many of them to draw.")
@click.option(
    "--tune", is_flag=True, help="First choose the thresholds that count best here; write them into the model."
)
@click.option("--record", is_flag=True, help="Write the figures into the model's manifest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")
def evaluate(
    model: Path,
    data: Path | None,
    boards: int | None,
    first_seed: int,
    megapixels: float,
    out: Path,
    worst: int,
    tune: bool,
    record: bool,
    as_json: bool,
) -> None:
    """Measure the exported model in folder MODEL: COCO's average precision of masks, counting, calibration.

    \b
    Example: fusebus model evaluate tuned-model --data photos-not-trained-on
    Exit codes: 0 measured, 1 not possible (the reason is named), 2 usage.
    """
    if data is None and boards is None:
        raise click.UsageError("name --data FOLDER or --boards NUMBER")
    if tune and record:
        raise click.UsageError("thresholds are chosen on other pictures than those that figures are measured on")
    with _told("evaluate"):
        from fusebus.vision.export.evaluation import Pictures, measure, record_figures, record_thresholds

        pictures = Pictures(data, boards, first_seed, megapixels)
        result = measure(model, pictures, out if worst else None, worst, tune)
        if tune:
            record_thresholds(model, result.thresholds)
        if record:
            record_figures(model, result, pictures.command)
    if as_json:
        click.echo(json.dumps({"thresholds": result.thresholds, **asdict(result.figures)}))
    else:
        click.echo("\n".join(result.lines()))
        if worst:
            click.echo(f"worst pictures (truth green, found magenta): {out}")


@contextmanager
def _told(command: str) -> Iterator[None]:
    """Foreseen failures become one sentence."""
    try:
        from fusebus.vision.export.failures import FAILURES
    except ModuleNotFoundError as error:
        raise click.ClickException(_MISSING.format(command=command, name=error.name)) from error
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(_MISSING.format(command=command, name=error.name)) from error
    except FAILURES as error:
        raise click.ClickException(str(error)) from error

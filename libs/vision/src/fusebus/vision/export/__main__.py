"""Owns the command line `python -m fusebus.vision.export {train,export,evaluate}`."""

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path


def main() -> None:
    arguments = _parser().parse_args()
    {"train": _train, "export": _export, "evaluate": _evaluate}[arguments.command](arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fusebus.vision.export", description="Make the demo model.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train the tiny SAM 3 on synthetic boards")
    train.add_argument("--out", type=Path, required=True, help="folder for the checkpoint (a transformers folder)")
    train.add_argument("--minutes", type=float, default=20.0, help="end after this many minutes (default: %(default)s)")
    train.add_argument("--steps", type=int, default=20_000, help="or after this many steps (default: %(default)s)")
    train.add_argument("--boards", type=int, default=3000, help="number of boards to train on (default: %(default)s)")
    train.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default: %(default)s)")
    train.add_argument("--batch", type=int, default=24, help="pictures per step (default: %(default)s)")
    train.add_argument("--mask-rows", type=int, default=8, help="of them with masks (default: %(default)s)")
    train.add_argument("--learning-rate", type=float, default=1e-3, help="at its peak (default: %(default)s)")
    train.add_argument("--grid-share", type=float, default=0.6, help="matched by grid first (default: %(default)s)")
    train.add_argument("--resume", action="store_true", help="start from the weights in --out")
    export = commands.add_parser("export", help="write model.onnx and manifest.json")
    export.add_argument("--checkpoint", type=Path, required=True, help="folder that train wrote")
    export.add_argument("--out", type=Path, required=True, help="folder for the model")
    export.add_argument(
        "--model-version", default="fuse-neutral-demo-1", help="results carry it (default: %(default)s)"
    )
    evaluate = commands.add_parser("evaluate", help="measure an exported model on unseen boards")
    evaluate.add_argument("--model", type=Path, required=True, help="folder with model.onnx and manifest.json")
    evaluate.add_argument("--boards", type=int, default=200, help="how many (default: %(default)s)")
    evaluate.add_argument(
        "--first-seed", type=int, default=100_000, help="their seeds follow from it (default: %(default)s)"
    )
    evaluate.add_argument("--record", action="store_true", help="write the figures into the manifest")
    return parser


# Each command imports what it needs: evaluate runs without torch.
def _train(arguments: argparse.Namespace) -> None:
    from fusebus.vision.export.training import TrainingPlan, train

    names = ("minutes", "steps", "seed", "boards", "batch", "mask_rows", "learning_rate", "grid_share")
    plan = TrainingPlan(**{name: getattr(arguments, name) for name in names})
    train(plan, arguments.out, arguments.resume, partial(print, flush=True))


def _export(arguments: argparse.Namespace) -> None:
    from fusebus.vision.export.onnx_export import ModelSettings, export_model

    settings = ModelSettings(model_version=arguments.model_version)
    print(json.dumps(export_model(arguments.checkpoint, arguments.out, settings), indent=2))


def _evaluate(arguments: argparse.Namespace) -> None:
    from fusebus.vision.export.evaluate import evaluate, record

    figures = evaluate(arguments.model, arguments.boards, arguments.first_seed)
    print(json.dumps(asdict(figures), indent=2))
    if arguments.record:
        record(arguments.model, figures)


if __name__ == "__main__":
    main()

"""Owns the command line `python -m fusebus.vision.export {train,export,evaluate}`."""

import argparse
from pathlib import Path

from fusebus.vision.export.training import TrainingPlan, train


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fusebus.vision.export", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train the demo model on synthetic boards")
    training.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    training.add_argument("--minutes", type=float, default=20.0)
    training.add_argument("--steps", type=int, default=20_000)
    training.add_argument("--boards", type=int, default=3000)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    plan = TrainingPlan(arguments.minutes, arguments.steps, arguments.seed, arguments.boards)
    train(plan, arguments.out, arguments.resume)


if __name__ == "__main__":
    main()

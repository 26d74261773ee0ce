"""The scripts of deploy/docker, which belong to no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "deploy/docker"))
sys.path.insert(0, str(Path(__file__).parents[3] / "deploy/docker/mail"))

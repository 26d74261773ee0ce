"""Puts tests/corpus on the path: the corpus of pictures and the table of names are made by its modules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))

"""Where the small model that comes with this package lies."""

from __future__ import annotations

from pathlib import Path

DEMO_MODEL = Path(__file__).parent / "models" / "fuse-neutral-demo"
"""A model folder: manifest.json, the graph, and a card for people."""

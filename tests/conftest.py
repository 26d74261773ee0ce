"""Loads the shared fixtures: every `tests/plugins/*_fixture.py` is a pytest plugin."""

import sys
from pathlib import Path

PLUGINS = Path(__file__).parent / "plugins"
sys.path.insert(0, str(PLUGINS))

pytest_plugins = sorted(path.stem for path in PLUGINS.glob("*_fixture.py"))

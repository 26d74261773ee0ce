"""Loads the shared fixtures: every `tests/plugins/*_fixture.py` is a pytest plugin. Says what may run side by side."""

import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "plugins"
sys.path.insert(0, str(PLUGINS))

pytest_plugins = sorted(path.stem for path in PLUGINS.glob("*_fixture.py"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers (-n 2 --dist loadgroup) a file stays together, and all system tests share one stack."""
    for item in items:
        shares_the_stack = "system" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("system" if shares_the_stack else str(item.path)))

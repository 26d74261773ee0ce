"""Loads the shared fixtures: every `tests/plugins/*_fixture.py` is a pytest plugin. Lets examples take their time."""

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

PLUGINS = Path(__file__).parent / "plugins"
sys.path.insert(0, str(PLUGINS))

pytest_plugins = sorted(path.stem for path in PLUGINS.glob("*_fixture.py"))

# How long an example takes says more of the machine than of the example; a hang ends by pytest's own timeout.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

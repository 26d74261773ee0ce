from importlib.metadata import EntryPoint, EntryPoints

import pytest
from click.testing import CliRunner

from fusebus.models import commands
from fusebus.models.commands import model


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    brought = EntryPoints(
        [
            EntryPoint("broken", "fusebus.no_such_module:command", commands.PLUGINS),
            EntryPoint("listed", "fusebus.models.commands:list_versions", commands.PLUGINS),
        ]
    )
    monkeypatch.setattr(commands, "entry_points", brought.select)


@pytest.mark.usefixtures("plugins")
def test_a_command_that_can_not_be_loaded_says_why_and_spoils_no_other() -> None:
    listing = CliRunner().invoke(model, ["--help"])
    assert listing.exit_code == 0
    assert "Not available here" in listing.output
    assert "Example: fusebus model list" in CliRunner().invoke(model, ["listed", "--help"]).output
    refused = CliRunner().invoke(model, ["broken"])
    assert refused.exit_code == 1
    assert "no_such_module" in refused.output


@pytest.mark.usefixtures("plugins")
def test_what_nothing_brings_is_no_command() -> None:
    assert CliRunner().invoke(model, ["nonsense"]).exit_code == 2

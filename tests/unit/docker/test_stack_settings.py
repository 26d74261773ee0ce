"""What the containers get before they start: keys that stay, and settings that every service takes."""

import stat
import tomllib
from pathlib import Path

import pytest
import stack_settings

from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.host import load_settings
from fusebus.host.life import HostSettings
from fusebus.inferencer.settings import InferencerSettings
from fusebus.ingest.settings import IngestSettings
from fusebus.notifier.settings import NotifierSettings
from fusebus.servicebus.config import load_topology
from fusebus.servicebus.engine import Engine

TEMPLATE = Path(__file__).parents[3] / "deploy/docker/settings.toml"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as the services see it after the first start."""
    folder = tmp_path / "run"
    folder.mkdir()
    stack_settings.write(folder, TEMPLATE, tmp_path / "sas.key")
    return folder


@pytest.mark.parametrize(
    ("settings", "section"),
    [
        (IngestSettings, "ingest"),
        (DispatcherSettings, "dispatcher"),
        (InferencerSettings, "inferencer"),
        (NotifierSettings, "notifier"),
        (HostSettings, "host"),
    ],
)
def test_every_service_takes_the_settings(run: Path, settings: type, section: str) -> None:
    load_settings(settings, section, {"FUSEBUS_SETTINGS": str(run / "settings.toml")})


def test_profiles_change_the_bus_and_the_telemetry_and_nothing_else(run: Path) -> None:
    before = tomllib.loads((run / "settings.toml").read_text())
    stack_settings.change({"telemetry": {"exporter": "otlp", "endpoint": stack_settings.COLLECTOR}}, run)
    emulator = stack_settings.broker_connection(stack_settings.EMULATOR_KEY, "emulator")
    stack_settings.change({"bus": {"connection": emulator, "ca_file": ""}}, run)
    after = tomllib.loads((run / "settings.toml").read_text())
    assert {name for name in after if after[name] != before.get(name)} == {"telemetry", "bus"}
    load_settings(HostSettings, "host", {"FUSEBUS_SETTINGS": str(run / "settings.toml")})


def test_the_whole_stack_is_refused_where_the_emulator_admits_too_few_connections(run: Path) -> None:
    assert not stack_settings.room(10, run), "our broker admits them"
    emulator = stack_settings.broker_connection(stack_settings.EMULATOR_KEY, "emulator")
    stack_settings.change({"bus": {"connection": emulator, "ca_file": ""}}, run)
    told = stack_settings.room(10, run)
    assert "admits 10 connections" in told and "docker compose up -d inferencer" in told
    assert not stack_settings.room(sum(stack_settings.CONNECTIONS.values()), run)


def test_keys_stay_over_a_restart_and_settings_follow_the_template(run: Path, tmp_path: Path) -> None:
    before = tomllib.loads((run / "settings.toml").read_text())
    other = tmp_path / "other.toml"
    other.write_text(TEMPLATE.read_text().replace("max_nodes = 2", "max_nodes = 5"))
    stack_settings.write(run, other, tmp_path / "sas.key")
    after = tomllib.loads((run / "settings.toml").read_text())
    assert after["bus"] == before["bus"] and after["blobs"] == before["blobs"]
    assert after["dispatcher"]["max_nodes"] == 5


def test_two_stacks_have_different_keys_that_only_their_user_reads(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stack_settings.write(other, TEMPLATE, tmp_path / "other.key")
    for name in ("azurite.key", "settings.toml"):
        assert (run / name).read_text() != (other / name).read_text()
        assert stat.S_IMODE((run / name).stat().st_mode) == 0o400


def test_the_topology_is_one_that_the_broker_reads(run: Path) -> None:
    load_topology(Engine(lambda: 0.0), run / "topology.json")


def test_programs_of_the_machine_get_the_published_addresses_and_the_same_keys(run: Path) -> None:
    inside = tomllib.loads((run / "settings.toml").read_text())
    found = tomllib.loads(stack_settings.for_host("localhost:1", "127.0.0.1:2", "127.0.0.1:3", "ca.pem", run))
    assert "sb://localhost:1;" in found["bus"]["connection"]
    assert "BlobEndpoint=http://127.0.0.1:2/" in found["blobs"]["connection"]
    assert "TableEndpoint=http://127.0.0.1:3/" in found["ledger"]["connection"]
    key = inside["bus"]["connection"].partition("SharedAccessKey=")[2]
    assert found["bus"]["connection"].partition("SharedAccessKey=")[2] == key

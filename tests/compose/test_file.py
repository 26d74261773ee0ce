"""Every container of docker-compose.yml, of all profiles: its image has a version, and it can not take the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KEEPS = {"mssql": ["NET_BIND_SERVICE"]}  # what a program file asks for has to be there
DEFAULT_PROFILE = {"settings", "provision", "broker", "azurite", "batch", "mail"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """By name, as Docker reads them: the file's own values, none of this machine's variables."""
    if shutil.which("docker") is None:
        if os.environ.get("CI"):
            pytest.fail("there is no docker command")
        pytest.skip("there is no docker command")
    command = ["docker", "compose", "--profile", "*", "config", "--format", "json"]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FUSEBUS_", "COMPOSE_"))}
    told = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, dict[str, Any]] = json.loads(told.stdout)["services"]
    assert found.keys() > DEFAULT_PROFILE | {"emulator", "mssql", "jaeger"}
    return found


def test_every_image_is_ours_or_has_a_version(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        image, _, tag = service["image"].rpartition("/")[2].partition(":")
        ours = service["image"].startswith("fusebus/") and service["pull_policy"] == "never"
        assert ours or (any(one.isdigit() for one in tag) and "latest" not in tag), (name, image, tag)


def test_every_container_has_limits_no_privileges_and_logs_that_end(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() >= {"memory", "cpus", "pids"}, name
        assert service["cap_drop"] == ["ALL"], name
        assert service.get("cap_add", []) == KEEPS.get(name, []), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_what_keeps_traces_in_memory_keeps_a_number_of_them(services: dict[str, dict[str, Any]]) -> None:
    assert int(services["jaeger"]["environment"]["MEMORY_MAX_TRACES"]) <= 10_000


def test_what_holds_more_connections_than_the_emulator_admits_waits_for_room_and_an_inferencer_does_not(
    services: dict[str, dict[str, Any]],
) -> None:
    waiting = {name for name, service in services.items() if "emulator-has-room" in service.get("depends_on", {})}
    assert waiting == {"ingest", "dispatcher", "notifier"}
    for name in waiting:
        needs = services[name]["depends_on"]
        assert needs.keys() > services["inferencer"]["depends_on"].keys()
        assert needs["emulator-has-room"] == {"condition": "service_completed_successfully", "required": True}

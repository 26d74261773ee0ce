"""The broker installed by itself, with what it declares and nothing else of this repository, serves the SDK."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.management import ServiceBusAdministrationClient

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "deploy/local/servicebus"
UV = Path(sys.executable).with_name("uv")
INSTALL_SECONDS = 280
STOP_SECONDS = 30


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new virtual environment's commands."""
    if not UV.exists():
        pytest.skip("no uv beside this python")
    folder = tmp_path_factory.mktemp("alone")
    run([UV, "venv", "--quiet", "--python", sys.executable, folder])
    install = [UV, "pip", "install", "--quiet", "--python", folder / "bin/python"]
    try:
        run([*install, "--constraint", ROOT / "requirements.txt", PACKAGE])
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"cannot install here: {error.stderr[:300]}")
    return folder / "bin"


def run(command: Sequence[str | Path]) -> str:
    """What it said; raises CalledProcessError."""
    done = subprocess.run(command, check=True, timeout=INSTALL_SECONDS, capture_output=True, text=True)
    return done.stdout


def test_the_broker_needs_nothing_else_of_this_repository(alone: Path, tmp_path: Path) -> None:
    listing = "from importlib.metadata import distributions; print(*(found.name for found in distributions()))"
    listed = run([alone / "python", "-c", listing]).split()
    assert [name for name in listed if name.startswith("fusebus")] == ["fusebus-servicebus"]
    assert {"aiohttp", "cryptography"} <= set(listed)
    assert not {"azure-servicebus", "msgspec", "requests"} & set(listed)
    with subprocess.Popen(
        [alone / "fusebus-servicebus", "--port", "0", "--data", tmp_path / "data"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"]},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            use(process.stdout.readline().strip(), process.stdout.readline().strip())
        finally:
            process.terminate()
        assert process.wait(STOP_SECONDS) == 0
        hints = process.stderr.read()
    assert f'connection_verify="{tmp_path}' in hints
    assert f"NODE_EXTRA_CA_CERTS={tmp_path}" in hints


def use(connection_string: str, ca_path: str) -> None:
    """By the two lines that it prints."""
    with ServiceBusAdministrationClient.from_connection_string(connection_string, connection_verify=ca_path) as found:
        found.create_queue("orders")
    with (
        ServiceBusClient.from_connection_string(connection_string) as client,
        client.get_queue_sender("orders") as sender,
        client.get_queue_receiver("orders") as receiver,
    ):
        sender.send_messages(ServiceBusMessage("alone"))
        (message,) = receiver.receive_messages(1, max_wait_time=5)
        assert str(message) == "alone"
        receiver.complete_message(message)

"""`fusebus model` on real storage and a real bus, as a person types it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from azure.servicebus import ServiceBusClient
from azure.storage.blob import BlobServiceClient
from click.testing import CliRunner, Result

from fusebus.console.__main__ import fusebus
from fusebus.contracts.topology import broker_configuration
from fusebus.models.manifest import load_manifest, write_manifest
from fusebus.models.settings import RegistrySettings
from fusebus.stack.azurite import Azurite
from fusebus.vision import DEMO_MODEL

Run = Callable[..., Result]


@pytest.fixture
def run(azurite: Azurite, registry_settings: RegistrySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("list")`: the command's outcome against a registry of its own, without a bus."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSEBUS_BLOBS_CONNECTION", azurite.connection_string)
    monkeypatch.setenv("FUSEBUS_MODELS_CONTAINER", registry_settings.container)
    return lambda *arguments: CliRunner().invoke(fusebus, ["model", *arguments])


@pytest.fixture
def demo(tmp_path: Path) -> Callable[[str], str]:
    """`demo("2")`: a folder with the demo model as version 2."""

    def copy(version: str) -> str:
        folder = tmp_path / f"demo-{version}"
        folder.mkdir()
        manifest = load_manifest(DEMO_MODEL)
        for name in manifest.files:
            (folder / name).write_bytes((DEMO_MODEL / name).read_bytes())
        write_manifest(folder, msgspec.structs.replace(manifest, name="demo", version=version))
        return str(folder)

    return copy


def said(result: Result, code: int = 0) -> str:
    assert result.exit_code == code, result.output
    return result.output


def test_a_model_goes_from_a_folder_into_service_and_back(run: Run, demo: Callable[[str], str]) -> None:
    assert "no versions yet" in said(run("list"))
    assert "nothing: workers serve" in said(run("show"))
    for version in "12":
        assert f"pushed demo@{version}" in said(run("push", demo(version), "--why", f"epoch {version}"))
    assert "demo@1 is live" in said(run("promote", "demo@1", "--why", "first"))
    assert "nothing to do: demo@1 is live already" in said(run("promote", "demo@1", "--why", "again"))
    assert "demo@2 gets 10 % of the images, demo@1 the others" in said(
        run("promote", "demo@2", "--canary", "10%", "--why", "better on glare")
    )
    assert "demo@2, 10 % of the images" in said(run("show"))
    assert "demo@2 is live, in place of demo@1" in said(run("promote", "demo@2", "--why", "good", "--who", "ada"))
    assert "demo@1 is live, in place of demo@2" in said(run("rollback", "--why", "counts too many"))
    for words in ("counts too many", "canary 10 %", "ada", "demo@2"):
        assert words in said(run("show"))
    (digest,) = {found.sha256 for found in load_manifest(DEMO_MODEL).files.values()}
    assert digest in said(run("show", "demo@1"))  # in one piece, whatever the width of the terminal
    assert "demo@2 is deleted" in said(run("delete", "demo@2", "--why", "no good"))
    assert "demo@1 is as it was pushed" in said(run("verify", "demo@1"))
    assert "demo@1 is in models/demo@1" in said(run("pull", "demo@1", "--out", "models"))
    assert load_manifest(Path("models/demo@1")).ref == "demo@1"


def test_every_answer_is_also_there_for_machines(run: Run, demo: Callable[[str], str]) -> None:
    def told(*arguments: str) -> Any:
        return json.loads(CliRunner().invoke(fusebus, ["model", *arguments, "--json"]).stdout)

    folder = demo("1")
    assert told("push", folder, "--why", "first")["new"] is True
    assert told("push", folder)["new"] is False
    (listed,) = told("list")
    assert (listed["ref"], listed["pushed"]["why"]) == ("demo@1", "first")
    assert listed["pushed"]["who"].endswith(f"@{socket.gethostname()}")
    assert told("promote", "demo@1", "--why", "go", "--who", "ada")["to"] == "demo@1"
    assert "already" in told("promote", "demo@1", "--why", "go")
    assert told("show")["history"][0]["who"] == "ada"
    assert told("show", "demo@1")["use"] == "live"
    assert told("verify", "demo@1") == {"ref": "demo@1", "problems": []}
    assert told("pull", "demo@1")["folder"] == "demo@1"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "demo@9"], 1, "has no demo@9"),
        (["promote", "demo", "--why", "x"], 1, "write NAME@VERSION"),
        (["promote", "demo@9", "--why", "x"], 1, "has no demo@9"),
        (["promote", "demo@9"], 2, "Missing option '--why'"),
        (["promote", "demo@9", "--canary", "0%", "--why", "x"], 2, "write a percentage"),
        (["promote", "demo@9", "--canary", "100", "--why", "x"], 2, "write a percentage"),
        (["promote", "demo@9", "--canary", "a lot", "--why", "x"], 2, "write a percentage"),
        (["rollback", "--why", "x"], 1, "nothing to go back to"),
        (["delete", "demo@9", "--why", "x"], 1, "has no demo@9"),
        (["verify", "demo@9"], 1, "has no demo@9"),
        (["pull", "demo@9"], 1, "has no demo@9"),
        (["push", "missing"], 1, "no such regular file"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_what_does_not_work_says_why_and_the_way_out(run: Run, arguments: list[str], code: int, words: str) -> None:
    assert words in said(run(*arguments), code)


def test_a_dangerous_graph_is_not_pushed(run: Run, demo: Callable[[str], str]) -> None:
    folder = Path(demo("1"))
    manifest = load_manifest(folder)
    write_manifest(folder, msgspec.structs.replace(manifest, top_k=manifest.top_k + 1))
    assert "the manifest says" in said(run("push", str(folder)), 1)
    assert "no versions yet" in said(run("list"))


def test_damage_in_the_registry_ends_verify_with_exit_code_1(
    run: Run, demo: Callable[[str], str], azurite: Azurite, registry_settings: RegistrySettings
) -> None:
    said(run("push", demo("1")))
    with BlobServiceClient.from_connection_string(azurite.connection_string) as client:
        client.get_blob_client(registry_settings.container, "versions/demo/1/model.onnx").delete_blob()
    assert "model.onnx: is missing in storage" in said(run("verify", "demo@1"), 1)


def test_storage_that_is_not_there_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBUS_BLOBS_RETRIES", "0")
    key = "AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a"
    monkeypatch.setenv("FUSEBUS_BLOBS_CONNECTION", f"DefaultEndpointsProtocol=http;{key}")
    assert "can't be reached" in said(run("list"), 1)


def test_a_promotion_is_told_on_the_fleet_topic_and_a_canary_is_not(
    run: Run, demo: Callable[[str], str], start_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = start_broker(broker_configuration())
    monkeypatch.setenv("FUSEBUS_BUS_CONNECTION", broker.connection_string)
    monkeypatch.setenv("FUSEBUS_BUS_CA_FILE", str(broker.ca_path))
    for version in "12":
        said(run("push", demo(version)))
    said(run("promote", "demo@1", "--why", "first", "--who", "ada"))
    said(run("promote", "demo@2", "--why", "try", "--canary", "5"))
    said(run("rollback", "--why", "worse"))
    said(run("promote", "demo@2", "--why", "second"))
    said(run("rollback", "--why", "worse", "--who", "bob"))
    with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_subscription_receiver("fleet", "notifier") as receiver,
    ):
        bodies = [json.loads(str(message)) for message in receiver.peek_messages(10)]
    assert [(body["previous"], body["current"], body["changed_by"]) for body in bodies[::2]] == [
        ("", "demo@1", "ada"),
        ("demo@2", "demo@1", "bob"),
    ]
    assert len(bodies) == 3


@pytest.mark.parametrize("name", ["push", "list", "show", "promote", "rollback", "verify", "pull", "delete"])
def test_every_command_explains_itself_with_an_example_and_its_exit_codes(name: str) -> None:
    result = CliRunner().invoke(fusebus, ["model", name, "--help"])
    assert result.exit_code == 0
    for words in ("Example: fusebus model", "Exit codes:", "--json"):
        assert words in result.output

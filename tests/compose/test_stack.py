"""The story of the stack in containers, in the order in which it is told: delivery, copies, renewal, kills, restart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fusebus.ledger import FinalKind, UploadRow

if TYPE_CHECKING:
    from conftest import ComposeStack

pytestmark = pytest.mark.timeout(0)  # the whole has one limit, in conftest.py: the first test waits for the build

Photos = Callable[[str, int], Path]
COPIES = {"inferencer": 3, "ingest": 2, "notifier": 2, "dispatcher": 2}
ROLLED = ("ingest", "dispatcher", "inferencer", "notifier", "batch", "broker", "azurite")
KILLED = ("ingest", "inferencer", "notifier", "dispatcher", "broker")
ARRIVED_SECONDS = 60.0
BACK_SECONDS = 150.0  # a container starts in 5 s; on a machine that others use, in 70 s


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if not file.name.startswith(".")}


def is_analysed(rows: list[UploadRow]) -> bool:
    return all(row.final is not None and row.final.kind is FinalKind.ANALYSED for row in rows)


def keys_of(stack: ComposeStack) -> set[str]:
    """The broker's and the storage account's."""
    settings = stack.settings_file.read_text(encoding="utf-8")
    keys = set(re.findall(r"(?:SharedAccessKey|AccountKey)=([^;\"]{20,})", settings))
    assert len(keys) == 2
    return keys


def has_come_back(stack: ComposeStack, killed: dict[str, Any]) -> bool:
    (now,) = json.loads(stack.run("docker", "inspect", killed["Id"]))
    return now["RestartCount"] > killed["RestartCount"] and now["State"]["Health"]["Status"] == "healthy"


def test_every_container_of_ours_runs_without_privileges(stack: ComposeStack) -> None:
    found = stack.containers()
    assert {container["Config"]["Labels"]["com.docker.compose.service"] for container in found} == {
        "broker", "azurite", "batch", "mail", "ingest", "dispatcher", "inferencer", "notifier",
    }  # fmt: skip
    for container in found:
        host, name = container["HostConfig"], container["Name"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert container["Config"]["User"] == "10001:10001", name
        assert host["Memory"] > 0 and host["NanoCpus"] > 0 and host["PidsLimit"] > 0, name
        assert container["State"]["Health"]["Status"] == "healthy", name
        for bindings in (container["NetworkSettings"]["Ports"] or {}).values():
            assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings or []), name


def test_an_image_has_a_label_a_user_and_no_key(stack: ComposeStack) -> None:
    keys = keys_of(stack)
    for image in sorted({container["Config"]["Image"] for container in stack.containers()}):
        (told,) = json.loads(stack.run("docker", "image", "inspect", image))
        assert told["Config"]["User"] == "10001:10001"
        assert told["Config"]["Labels"]["org.opencontainers.image.title"].startswith("fusebus-")
        history = stack.run("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
        assert not [key for key in keys if key in history + json.dumps(told)]


def test_no_service_brings_torch(stack: ComposeStack) -> None:
    look = "import importlib.util as u; print([n for n in ('torch', 'transformers') if u.find_spec(n)])"
    for service in ("ingest", "dispatcher", "inferencer", "notifier"):
        assert stack.compose("exec", "--no-TTY", service, "python3", "-c", look).strip() == "[]"


def test_a_delivery_becomes_a_report_and_one_mail(stack: ComposeStack, photos: Photos) -> None:
    fusebus = "deploy/docker/fusebus"  # as people without Python on their machine call it
    stack.run(fusebus, "supplier", "add", "acme")
    granted = stack.run(fusebus, "supplier", "grant", "acme")
    link = next(line for line in granted.splitlines() if line.startswith("http"))
    folder = photos("first", 8)
    (folder / "notes.jpg").write_bytes(b"no picture at all")
    sending = stack.send(folder, link)
    said, _ = sending.communicate(timeout=ARRIVED_SECONDS)
    assert sending.returncode == 0, said
    rows = stack.until_done("acme", names(folder))
    assert is_analysed([row for row in rows if row.blob_name != "notes.jpg"])
    (run,) = (run for run, _ in stack.runs("acme"))
    page = stack.report(run.run_id)
    assert all(name in page for name in names(folder))
    status = json.loads(stack.run(fusebus, "status", "--json"))
    assert status["runs"][0]["by_state"] == {"analysed": 8, "rejected": 1}
    signature = re.findall(r"sig=([^&]+)", link)
    said = stack.compose("logs", "--no-color")
    assert not [secret for secret in [*keys_of(stack), *signature] if secret in said]


def test_each_service_works_in_several_copies(stack: ComposeStack, photos: Photos) -> None:
    stack.up(**COPIES)
    assert {service: len(stack.containers(service)) for service in COPIES} == COPIES
    folder = photos("copies", 60)
    sending = stack.send(folder, stack.grant("copies"))
    assert sending.wait(ARRIVED_SECONDS) == 0
    rows = stack.until_done("copies", names(folder))
    assert is_analysed(rows)
    workers = {row.final.worker.partition("/")[0] for row in rows if row.final}
    outside = {container["Config"]["Hostname"] for container in stack.containers("inferencer")}
    assert len(workers & outside) >= 2, f"{workers} of {outside}"
    leading = re.findall(r"leading in term (\d+)", stack.logs("dispatcher"))
    assert leading == ["1"], "the second dispatcher waits while the first one leads"


def test_every_service_is_replaced_under_load_without_a_loss_or_a_second_mail(
    stack: ComposeStack, photos: Photos
) -> None:
    folders = {service: photos(f"roll-{service}", 20) for service in ROLLED}
    sendings = {}
    for service in ROLLED:
        before = {container["Id"] for container in stack.containers(service)}
        sendings[service] = stack.send(folders[service], stack.grant(f"roll-{service}"))
        stack.run("deploy/docker/roll", service)
        after = {container["Id"] for container in stack.containers(service)}
        assert len(after) == COPIES.get(service, 1) and not after & before
    for service, sending in sendings.items():
        said, _ = sending.communicate(timeout=ARRIVED_SECONDS)
        assert sending.returncode == 0, f"{service}: {said}"
    for service, folder in folders.items():
        assert is_analysed(stack.until_done(f"roll-{service}", names(folder)))
    assert len(set(stack.mails())) == len(stack.mails())


def test_a_killed_container_comes_back_and_nothing_is_lost(stack: ComposeStack, photos: Photos) -> None:
    link, sent = stack.grant("kills"), set[str]()
    for service in KILLED:
        folder = photos(f"kill-{service}", 8)
        sent |= names(folder)
        sending = stack.send(folder, link)
        killed = stack.containers(service)[0]
        # All but the container's own first process ends at once, as in a crash: Docker starts the container again.
        stack.run("docker", "exec", killed["Id"], "sh", "-c", "kill -9 -1", check=False)
        stack.until(f"{service} is healthy again", lambda killed=killed: has_come_back(stack, killed), BACK_SECONDS)
        assert sending.wait(ARRIVED_SECONDS) == 0
    assert is_analysed(stack.until_done("kills", sent))


def test_a_stack_goes_on_with_what_was_saved_of_it(stack: ComposeStack, photos: Photos, tmp_path: Path) -> None:
    before = {run.run_id for run, _ in stack.runs("acme")}
    folder = photos("later", 6)
    sending = stack.send(folder, stack.grant("later"))
    assert sending.wait(ARRIVED_SECONDS) == 0
    stack.compose("down", "--timeout", "40")
    stack.run("deploy/docker/volumes", "save", tmp_path)
    stack.compose("down", "--volumes")
    stack.run("deploy/docker/volumes", "load", tmp_path)
    stack.up()
    assert {run.run_id for run, _ in stack.runs("acme")} == before
    assert is_analysed(stack.until_done("later", names(folder)))

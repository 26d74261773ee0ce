"""fusebus-upload against real storage, through cuts, with odd names, and with links that storage refuses."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fusebus.blobs import Blobs, BlobSettings
from fusebus.blobs.layout import supplier_container
from fusebus.upload import FileOutcome, LinkRefused, Receipt, Sent, files_in, send_files
from fusebus.upload.link import read_link

ODD_NAMES = [
    "with space.jpg",
    "100%.jpg",
    "%2e%2e%2fb",
    "what?&=+.jpg",
    "hash#.jpg",
    "quote'\"<>&;",
    "é.jpg",
    "e\u0301.jpg",
]
ODD_NAMES += ["\u202egpj.exe", "\U0001f600.jpg", "=cmd()", "-rf", "~", "a b/ c /d.jpg", "x" * 200, "CON", "a:b|c*.jpg"]
UNFIT_NAMES = ["two\nlines", "back\\slash", "dot.", "\x1b[31m"]


@pytest.fixture
async def blobs(blob_settings: BlobSettings, supplier: str) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        await opened.create_container(supplier_container(supplier))
        yield opened


@pytest.fixture
async def sas(blobs: Blobs, supplier: str) -> str:
    return (await blobs.supplier_grant(supplier, "g1", datetime.now(UTC) + timedelta(days=1))).url


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"content of {name!a}".encode())


async def send(folder: Path, url: str, receipt: Path | None = None) -> dict[str, FileOutcome]:
    link = read_link(url, datetime.now(UTC))

    def run() -> list[FileOutcome]:
        with Receipt(receipt or folder / ".receipt") as kept:
            return send_files(link, files_in(folder), kept)

    return {one.file.name: one for one in await asyncio.to_thread(run)}


async def listed(blobs: Blobs, supplier: str) -> dict[str, bytes]:
    box = supplier_container(supplier)
    found = [one async for one in blobs.list(box)]
    return {one.name: await blobs.read(box, one.name, max_bytes=one.size) if one.size else b"" for one in found}


async def test_names_are_kept_exactly_or_the_file_is_refused(
    blobs: Blobs, supplier: str, sas: str, tmp_path: Path
) -> None:
    fill(tmp_path, *ODD_NAMES, *UNFIT_NAMES, ".hidden")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/broken\xff.jpg")).write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to(__file__)
    done = await send(tmp_path, sas)
    failed = {name for name, one in done.items() if one.sent is Sent.FAILED}
    assert failed == {*UNFIT_NAMES, "broken\udcff.jpg", "link.jpg"}
    assert all(done[name].error for name in failed)
    assert await listed(blobs, supplier) == {name: (tmp_path / name).read_bytes() for name in ODD_NAMES}


async def test_a_repeated_call_sends_only_what_is_new_and_never_overwrites(
    blobs: Blobs, supplier: str, sas: str, tmp_path: Path
) -> None:
    fill(tmp_path, "a", "b", "empty")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "large").write_bytes(os.urandom(3_000_000))
    assert {one.sent for one in (await send(tmp_path, sas)).values()} == {Sent.SENT}
    before = await listed(blobs, supplier)
    (tmp_path / "a").write_bytes(b"another photo, the camera began to count anew")
    fill(tmp_path, "c")
    again = {name: one.sent for name, one in (await send(tmp_path, sas)).items()}
    assert again == dict.fromkeys(("b", "empty", "large"), Sent.SENT_EARLIER) | {"a": Sent.CHANGED, "c": Sent.SENT}
    other = await send(tmp_path, sas, tmp_path / ".another-machine")
    assert {one.sent for one in other.values()} == {Sent.NAME_TAKEN}
    assert await listed(blobs, supplier) == before | {"c": (tmp_path / "c").read_bytes()}


@contextmanager
def cutting_proxy(port: int, cut: int) -> Iterator[int]:
    """A relay that loses the answers of its first `cut` connections after the whole request went through."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = threading.Semaphore(cut)

    def relay(client: socket.socket) -> None:
        lost = left.acquire(blocking=False)
        with client, socket.create_connection(("127.0.0.1", port)) as server:

            def back() -> None:
                try:
                    while data := server.recv(65536):
                        if lost:
                            client.shutdown(socket.SHUT_RDWR)
                            return
                        client.sendall(data)
                except OSError:
                    return

            answering = threading.Thread(target=back, daemon=True)
            answering.start()
            try:
                while data := client.recv(65536):
                    server.sendall(data)
            except OSError:
                pass
            answering.join(0.2 if lost else 0.0)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=relay, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


async def test_a_lost_answer_is_no_name_that_is_taken(
    blobs: Blobs, supplier: str, sas: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusebus.upload.sending.FIRST_PAUSE_SECONDS", 0.01)
    fill(tmp_path, *(f"{number}.jpg" for number in range(10)))
    port = urlsplit(sas).port
    assert port
    with cutting_proxy(port, cut=5) as through:
        done = await send(tmp_path, sas.replace(f":{port}/", f":{through}/"))
    assert {one.sent for one in done.values()} == {Sent.SENT}
    found = await listed(blobs, supplier)
    assert found.keys() >= done.keys() and 10 <= len(found) <= 15, "what was lost may be there twice, for ingest to see"
    for name, one in done.items():
        assert found[one.stored_as or name] == (tmp_path / name).read_bytes()


async def test_a_lost_answer_makes_no_file_of_another_pass_for_ours(
    blobs: Blobs, supplier: str, sas: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusebus.upload.sending.FIRST_PAUSE_SECONDS", 0.01)
    fill(tmp_path, "IMG_0001.jpg")
    await blobs.write(supplier_container(supplier), "IMG_0001.jpg", b"of another van", "image/jpeg")
    port = urlsplit(sas).port
    assert port
    with cutting_proxy(port, cut=1) as through:
        (done,) = (await send(tmp_path, sas.replace(f":{port}/", f":{through}/"))).values()
    found = await listed(blobs, supplier)
    assert found.pop("IMG_0001.jpg") == b"of another van"
    assert found == {done.stored_as: (tmp_path / "IMG_0001.jpg").read_bytes()}


@pytest.mark.long
async def test_a_killed_call_goes_on_where_it_was(blobs: Blobs, supplier: str, sas: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number in range(60):
        fill(photos, f"{number}.jpg")
        (photos / f"{number}.jpg").write_bytes(os.urandom(400_000))
    command = [sys.executable, "-m", "fusebus.upload", str(photos), "--parallel", "2", "--json"]
    environment = {**os.environ, "FUSEBUS_UPLOAD_SAS": sas}
    first = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.DEVNULL)
    receipt, deadline = photos / ".fusebus-receipt.jsonl", asyncio.get_running_loop().time() + 30
    while not receipt.exists() or receipt.read_bytes().count(b'"sent"') < 5:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)
    first.kill()
    await first.wait()
    second = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.PIPE)
    told, _ = await second.communicate()
    outcomes = [file["outcome"] for file in json.loads(told)["files"]]
    assert set(outcomes) == {"sent", "sent earlier"} and second.returncode == 0
    assert outcomes.count("sent earlier") >= 5
    # What was under way at the kill may be there twice: under its name, and under one of its own.
    found = await listed(blobs, supplier)
    assert len(found) <= 62 and set(found.values()) == {one.read_bytes() for one in photos.glob("*.jpg")}
    assert found.items() >= {one.name: one.read_bytes() for one in photos.glob("*.jpg")}.items()


async def test_a_refused_link_stops_at_once_and_says_why(blobs: Blobs, supplier: str, sas: str, tmp_path: Path) -> None:
    fill(tmp_path, *(f"{number}.jpg" for number in range(30)))
    await blobs.revoke_grants(supplier, {"g1"})
    with pytest.raises(LinkRefused, match="revoked") as error:
        await send(tmp_path, sas)
    assert "sig=" not in str(error.value)
    with pytest.raises(LinkRefused, match=r"revoked|gone"):
        await send(tmp_path, sas.replace(supplier_container(supplier), supplier_container(f"{supplier}-none")))
    assert await listed(blobs, supplier) == {}

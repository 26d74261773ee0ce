"""`fusebus upload --supplier` on Azurite: what is there already is compared, and a refused right is no taken name."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from fusebus.blobs import Blobs, BlobSettings
from fusebus.blobs.layout import supplier_container
from fusebus.console.__main__ import fusebus
from fusebus.console.photos import photos_in
from fusebus.console.uploading import Sent, upload_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "same.jpg").write_bytes(b"same")
    (folder / "other.jpg").write_bytes(b"first")
    return folder


def test_a_taken_name_is_no_failure_only_where_the_content_is_the_same(
    blob_settings: BlobSettings, supplier: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUSEBUS_SETTINGS", raising=False)
    monkeypatch.setenv("FUSEBUS_BLOBS_CONNECTION", blob_settings.connection.reveal())
    command = ["upload", str(folder), "--supplier", supplier]

    def outcomes() -> tuple[int, dict[str, str]]:
        result = CliRunner().invoke(fusebus, [*command, "--json"])
        return result.exit_code, {file["name"]: file["outcome"] for file in json.loads(result.stdout)["files"]}

    assert outcomes() == (0, {"other.jpg": "sent", "same.jpg": "sent"})
    assert outcomes() == (0, {"other.jpg": "already there", "same.jpg": "already there"})
    (folder / "other.jpg").write_bytes(b"again")
    assert outcomes() == (1, {"other.jpg": "name taken", "same.jpg": "already there"})
    assert "another file of this name" in CliRunner().invoke(fusebus, command).output


async def test_content_is_compared_also_where_storage_keeps_no_digest(
    blob_settings: BlobSettings, supplier: str
) -> None:
    async with Blobs(blob_settings) as blobs:
        box = supplier_container(supplier)
        await blobs.create_container(box)
        client = blobs._blob(box, "blocks")
        for name, part in (("a", b"one"), ("b", b"two")):
            await client.stage_block(name, part)
        await client.commit_block_list(["a", "b"])
        found = await blobs.properties(box, "blocks")
        assert found is not None and not found.content_md5
        assert [await blobs.holds(box, "blocks", data) for data in (b"onetwo", b"twoone", b"one")] == [
            True,
            False,
            False,
        ]
        assert not await blobs.holds(box, "none", b"")


async def test_a_right_that_is_missing_is_no_name_that_is_taken(folder: Path) -> None:
    refusal = b"HTTP/1.1 403 No\r\nx-ms-error-code: AuthorizationPermissionMismatch\r\nContent-Length: 0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.recv(65536)
                    client.sendall(refusal)

        threading.Thread(target=serve, daemon=True).start()

        async def is_there(name: str, data: bytes) -> bool:
            raise AssertionError("nothing says that there is such a blob")

        url = f"http://127.0.0.1:{listener.getsockname()[1]}/account/in-acme?sp=c&sr=c&skoid=1&sig=x"
        done = await upload_photos(url, photos_in(folder), is_there)
    assert [(one.sent, one.error) for one in done] == [(Sent.FAILED, "403 AuthorizationPermissionMismatch")] * 2


def test_the_link_may_stand_in_a_variable_which_other_processes_cant_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEBUS_UPLOAD_SAS", "https://a.example/in-acme?sp=racwdl&sig=secret")
    result = CliRunner().invoke(fusebus, ["upload", str(folder)])
    assert (result.exit_code, "allows more than to create files" in result.output) == (2, True)
    assert "secret" not in result.output

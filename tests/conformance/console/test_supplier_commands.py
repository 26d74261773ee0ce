"""`fusebus supplier` on Azurite: added, granted, uploaded with the grant, revoked, refused."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob.aio import BlobServiceClient
from click.testing import CliRunner, Result

from fusebus.blobs import Blobs, BlobSettings
from fusebus.console.__main__ import fusebus
from fusebus.ledger import Grant, Ledger, LedgerSettings, LedgerUnavailable

Run = Callable[..., Result]


@pytest.fixture
def run(ledger_settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch) -> Run:
    for section in ("LEDGER", "BLOBS"):
        monkeypatch.setenv(f"FUSEBUS_{section}_CONNECTION", ledger_settings.connection.reveal())
    monkeypatch.setenv("FUSEBUS_LEDGER_TABLE_PREFIX", ledger_settings.table_prefix)
    monkeypatch.delenv("FUSEBUS_SETTINGS", raising=False)

    async def create() -> None:
        async with Ledger(ledger_settings) as ledger:
            await ledger.create_tables()

    asyncio.run(create())
    return lambda *arguments: CliRunner().invoke(fusebus, list(arguments))


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_supplier_lives_from_add_to_remove(run: Run, supplier: str) -> None:
    terms = ("--lane", "urgent", "--deadline", "2h", "--images-per-day", "5", "--bytes-per-day", "20GB", "--by", "me")
    added = answer(run("supplier", "add", supplier, *terms, "--email", "a@b.example", "--json"))
    assert (added["state"], added["deadline_seconds"], added["bytes_per_day"]) == ("active", 7200.0, 20 * 10**9)
    assert run("supplier", "add", supplier, *terms, "--email", "a@b.example").exit_code == 0, "the same again"
    taken = run("supplier", "add", supplier)
    assert (taken.exit_code, "already (active)" in taken.output) == (2, True)
    changed = answer(run("supplier", "set", supplier, "--images-per-day", "9", "--unset", "lane", "--json"))
    assert (changed["images_per_day"], changed["lane"], changed["email"]) == (9, None, "a@b.example")
    assert run("supplier", "suspend", supplier, "--reason", "screenshots").exit_code == 0
    refused = run("supplier", "grant", supplier)
    assert (refused.exit_code, "is suspended" in refused.output) == (2, True)
    words = run("supplier", "show", supplier).output
    assert "suspended since" in words and "screenshots" in words and "images a day 9" in words
    assert run("supplier", "resume", supplier).exit_code == 0
    assert run("supplier", "remove", supplier, "--reason", "over").exit_code == 0
    assert [one["state"] for one in answer(run("supplier", "list", "--json")) if one["name"] == supplier] == ["removed"]


def test_a_grant_uploads_until_it_is_revoked(run: Run, supplier: str, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    run("supplier", "add", supplier)
    told = run("supplier", "grant", supplier, "--for", "30d").output
    assert [way in told for way in ("fusebus-upload photos", "azcopy copy", "curl ")] == [True] * 3
    (url,) = [line for line in told.splitlines() if line.startswith("http")]
    sent = answer(run("upload", str(tmp_path), "--sas", url, "--json"))
    assert {file["outcome"] for file in sent["files"]} == {"sent"}
    if shutil.which("curl"):
        (tmp_path / "photo.jpg").write_bytes(b"photo")
        line = told[told.index("curl ") :]
        codes = [subprocess.run(line, shell=True, cwd=tmp_path, check=False).returncode for _ in range(2)]
        assert (codes[0], codes[1] != 0) == (0, True), "sent once, never over itself"
        (tmp_path / "photo.jpg").unlink()
    shown = run("supplier", "show", supplier)
    assert "sig=" not in shown.output and "holds" in shown.output
    (tmp_path / "c.jpg").write_bytes(b"c")
    assert run("supplier", "revoke", supplier).exit_code == 0
    refused = run("upload", str(tmp_path), "--sas", url)
    assert (refused.exit_code, "revoked" in refused.output) == (3, True)
    assert "revoked" in run("supplier", "show", supplier).output


def test_a_grant_comes_with_a_link_that_reads_receipts_until_it_is_revoked(
    run: Run, supplier: str, blob_settings: BlobSettings
) -> None:
    run("supplier", "add", supplier)
    told = run("supplier", "grant", supplier).output
    (first, newest) = [line.strip() for line in told.splitlines() if f"/to-{supplier}/" in line]
    assert (first.partition("?")[0].rpartition("/")[2], newest.partition("?")[0].rpartition("/")[2]) == (
        "receipts.csv",
        "receipt.csv",
    )
    granted = answer(run("supplier", "grant", supplier, "--json"))
    assert f"/to-{supplier}?" in granted["receipts_url"] and f"/in-{supplier}?" in granted["url"]

    async def leave() -> None:
        async with Blobs(blob_settings) as blobs:
            await blobs.write(f"to-{supplier}", "receipts.csv", b"what became of it", "text/csv")

    def status() -> int:
        try:
            with urllib.request.urlopen(first) as opened:  # as a browser does
                assert opened.read() == b"what became of it"
                return int(opened.status)
        except urllib.error.HTTPError as error:
            return error.code

    asyncio.run(leave())
    assert status() == 200
    assert run("supplier", "revoke", supplier).exit_code == 0
    assert status() == 403


@pytest.mark.parametrize("fails", ["receipts", "uploads", "no container", "ledger"])
def test_a_grant_that_fails_leaves_nothing_that_holds(
    run: Run, supplier: str, blob_settings: BlobSettings, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    run("supplier", "add", supplier)
    until = datetime.now(UTC) + timedelta(days=1)

    async def prepare() -> None:
        async with Blobs(blob_settings) as blobs:
            await blobs.create_container(f"to-{supplier}")
            for number in range(5 if fails in ("receipts", "uploads") else 0):  # all that a container can have
                await (blobs.receipt_grant if fails == "receipts" else blobs.supplier_grant)(
                    supplier, f"g{number}", until
                )

    async def refuse(self: Ledger, grant: Grant) -> None:
        raise LedgerUnavailable("no answer")

    async def policies() -> set[str]:
        async with BlobServiceClient.from_connection_string(blob_settings.connection.reveal()) as service:
            there = [f"to-{supplier}"] if fails == "no container" else [f"in-{supplier}", f"to-{supplier}"]
            found = [await service.get_container_client(name).get_container_access_policy() for name in there]
            return {str(one.id) for one in (*found[0]["signed_identifiers"], *found[-1]["signed_identifiers"])}

    async def delete() -> None:
        async with BlobServiceClient.from_connection_string(blob_settings.connection.reveal()) as service:
            await service.delete_container(f"in-{supplier}")

    asyncio.run(prepare())
    if fails == "no container":
        asyncio.run(delete())
    if fails == "ledger":
        monkeypatch.setattr(Ledger, "note_grant", refuse)
    refused = run("supplier", "grant", supplier)
    assert (refused.exit_code, "sig=" in refused.output) == (1, False), refused.output
    assert not {name for name in asyncio.run(policies()) if not name.startswith("g")}
    assert answer(run("supplier", "show", supplier, "--json"))["grants"] == []


def test_a_grant_that_storage_cant_take_back_alone_is_told_with_the_way_out(
    run: Run, supplier: str, ledger_settings: LedgerSettings
) -> None:
    run("supplier", "add", supplier)
    now = datetime.now(UTC)
    delegated = Grant(
        grant_id="g1", supplier=supplier, made_at=now, made_by="me", expires_at=now + timedelta(days=1), revocable=False
    )

    async def note() -> None:
        async with Ledger(ledger_settings) as ledger:
            await ledger.note_grant(delegated)

    asyncio.run(note())
    for command in ("revoke", "remove"):
        told = run("supplier", command, supplier)
        assert (told.exit_code, "revoke-delegation-keys" in told.output) == (3, True), told.output
    assert answer(run("supplier", "show", supplier, "--json"))["supplier"]["state"] == "removed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "Not A Name"], "no supplier name"),
        (["add", "acme", "--bytes-per-day", "many"], "is no size"),
        (["add", "acme", "--email", "x\r\nBcc: y@z"], "no e-mail address"),
        (["add", "acme", "--deadline", "soon"], "no span of time"),
        (["set", "acme"], "nothing to change"),
        (["grant", "acme", "--for", "9999d"], "longer than"),
        (["grant", "acme", "--for", "99999999999d"], "no span of time"),
    ],
)
def test_wrong_words_are_named(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEBUS_LEDGER_CONNECTION", "unused")
    found = CliRunner().invoke(fusebus, ["supplier", *arguments])
    assert (found.exit_code, words in found.output) == (2, True), found.output


@pytest.mark.parametrize("name", ["show", "suspend", "grant", "revoke", "remove", "set"])
def test_an_unknown_supplier_is_told_with_the_known_ones(run: Run, supplier: str, name: str) -> None:
    found = run("supplier", name, supplier, *(["--lane", "bulk"] if name == "set" else []))
    assert (found.exit_code, f"there is no supplier '{supplier}'; known are none" in found.output) == (2, True)

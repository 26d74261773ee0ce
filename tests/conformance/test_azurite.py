"""Storage through the real SDKs, and the life of the Azurite process."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.data.tables import TableServiceClient, UpdateMode
from azure.storage.blob import BlobServiceClient

from fusebus.stack.azurite import Azurite, AzuriteOptions


def running(pid: int) -> bool:
    """True while the process lives; one that only waits to be reaped counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_blob_comes_back_as_it_was_written(azurite: Azurite) -> None:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        container = service.create_container(f"c{uuid.uuid4().hex}")
        container.upload_blob("a/b.bin", b"\x00\x01")
        assert container.download_blob("a/b.bin").readall() == b"\x00\x01"


def test_a_table_row_is_guarded_by_its_etag(azurite: Azurite) -> None:
    with TableServiceClient.from_connection_string(azurite.connection_string) as service:
        table = service.create_table(f"t{uuid.uuid4().hex}")
        row = {"PartitionKey": "p", "RowKey": "r", "n": 1}
        written = table.create_entity(row)
        with pytest.raises(ResourceExistsError):
            table.create_entity(row)
        table.update_entity({**row, "n": 2}, mode=UpdateMode.REPLACE)
        with pytest.raises(HttpResponseError):
            table.update_entity({**row, "n": 3}, etag=written["etag"], match_condition=MatchConditions.IfNotModified)


def test_the_account_key_is_not_the_published_one(azurite: Azurite) -> None:
    assert not azurite.account_key.startswith("Eby8vdM02xNO")
    guess = azurite.connection_string.replace(azurite.account_key, Azurite().account_key)
    with BlobServiceClient.from_connection_string(guess) as service, pytest.raises(HttpResponseError):
        list(service.list_containers())


async def test_data_on_disk_survives_a_restart_and_the_process_ends_with_its_context(tmp_path: Path) -> None:
    options = AzuriteOptions(location=tmp_path / "data")
    async with Azurite(options) as first:
        assert first._process is not None
        pid = first._process.pid
        with BlobServiceClient.from_connection_string(first.connection_string) as service:
            service.create_container("kept")
    assert not running(pid)
    async with Azurite(options) as second:
        with BlobServiceClient.from_connection_string(second.connection_string) as service:
            assert [container.name for container in service.list_containers()] == ["kept"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_azurite_dies_when_its_parent_is_killed(azurite: Azurite) -> None:
    program = (
        "import asyncio\n"
        "from fusebus.stack.azurite import Azurite\n"
        "async def main():\n"
        "    async with Azurite() as azurite:\n"
        "        print(azurite._process.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while running(child) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not running(child)

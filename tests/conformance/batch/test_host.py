"""A local Batch on a name of its own, as in containers: called by it, and by no other."""

import aiohttp
import pytest

from fusebus.localbatch.server import LocalBatch, LocalBatchOptions

OTHER_LOOPBACK = "127.0.0.2"


@pytest.mark.parametrize(("host", "expected"), [("", 200), ("nodes.example:8090", 403)])
async def test_a_server_on_its_own_host_answers_to_that_name_only(host: str, expected: int) -> None:
    async with LocalBatch(LocalBatchOptions(host=OTHER_LOOPBACK)) as batch, aiohttp.ClientSession() as client:
        assert batch.url.startswith(f"http://{OTHER_LOOPBACK}:")
        headers = {"Host": host} if host else {}
        async with client.get(f"{batch.url}/local/faults", headers=headers) as answer:
            assert answer.status == expected


async def test_a_host_of_another_machine_can_not_be_listened_on() -> None:
    with pytest.raises(OSError, match="address"):
        await LocalBatch(LocalBatchOptions(host="192.0.2.1")).start()

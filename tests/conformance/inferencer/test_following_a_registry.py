"""What is promoted is fetched, proven and served; what is bad is refused and reported. The real onnxruntime."""

import asyncio
import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
from model_variants import EDGE, NAME, OWN, Edit, index_out_of_range, memory_bomb, random_numbers, scores_above_1, slow

from fusebus.blobs import Blobs
from fusebus.contracts.messages import ModelChanged, ModelRefused
from fusebus.inferencer.serving import Serving
from fusebus.models.registry import Registry
from fusebus.models.settings import GIB, RegistrySettings

pytestmark = pytest.mark.long


async def detects(serving: Serving) -> str:
    """The version that answers now."""
    with serving.lease("an image") as model:
        await model.detect(np.zeros((EDGE, EDGE, 3), np.uint8))
        return model.manifest.ref


async def test_a_promoted_version_is_fetched_proven_and_served_from_a_private_folder(
    registry: Registry, models: RegistrySettings, push: Any, start: Any
) -> None:
    await registry.promote(await push("1"), "tests", "")
    worker = await start()
    assert await detects(worker.serving) == f"{NAME}@1"
    await registry.promote(await push("2"), "ada", "sharper")
    await worker.follower.look()
    assert await detects(worker.serving) == f"{NAME}@2"
    (said,) = worker.said
    assert isinstance(said, ModelChanged)
    assert (said.previous, said.current, said.changed_by) == (f"{NAME}@1", f"{NAME}@2", "ada")
    for ref in (f"{NAME}@1", f"{NAME}@2"):
        folder = models.cache / ref
        assert folder.stat().st_mode & 0o077 == 0
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o400}


BAD = {
    "an operator outside of the list": (random_numbers, {}, {}, "graph", "RandomUniform"),
    "another shape than its manifest says": (lambda _: None, {"top_k": 9}, {}, "graph", ""),
    "scores that are no probabilities": (scores_above_1, {}, {}, "outputs", "outside of 0 to 1"),
    "a warm-up that fails": (index_out_of_range, {}, {}, "warm_up", "Gather"),
    "more memory than allowed": (memory_bomb, {}, {"load_memory_bytes": GIB}, "memory", str(GIB)),
    "more time than allowed": (slow, {}, {"load_timeout_seconds": 5.0}, "time_out", "within 5 s"),
}


@pytest.mark.parametrize(("edit", "fields", "limits", "reason", "says"), BAD.values(), ids=BAD.keys())
async def test_a_bad_model_is_refused_and_reported_once_while_the_old_one_serves(
    edit: Edit,
    fields: dict[str, Any],
    limits: dict[str, Any],
    reason: str,
    says: str,
    registry: Registry,
    push: Any,
    start: Any,
) -> None:
    worker = await start(**limits)
    await registry.promote(await push("bad", edit, **fields), "tests", "")
    looking = asyncio.create_task(worker.follower.look())
    served = Counter()
    while not looking.done():
        served[await detects(worker.serving)] += 1
        await asyncio.sleep(0.05)
    await looking
    assert served.keys() == {OWN}
    for _ in range(3):
        await worker.follower.look()
    (said,) = worker.said
    assert isinstance(said, ModelRefused)
    assert (said.model, said.serving, said.reason) == (f"{NAME}@bad", OWN, reason), said.description
    assert says in said.description
    assert worker.refs == (OWN, None)


async def test_a_model_whose_bytes_were_altered_in_storage_is_refused(
    registry: Registry, models: RegistrySettings, blobs: Blobs, push: Any, start: Any
) -> None:
    worker = await start()
    await registry.promote(await push("bad"), "tests", "")
    name = f"versions/{NAME}/bad/model.onnx"
    data = bytearray(await blobs.read(models.container, name, max_bytes=10**8))
    data[len(data) // 2] ^= 1
    await blobs.write(models.container, name, bytes(data), "application/octet-stream")
    await worker.follower.look()
    (said,) = worker.said
    assert isinstance(said, ModelRefused)
    assert (said.reason, said.serving) == ("files", OWN)
    assert hashlib.sha256(data).hexdigest() in said.description
    assert await detects(worker.serving) == OWN


async def test_a_worker_that_starts_under_a_bad_version_serves_the_one_before(
    registry: Registry, push: Any, start: Any
) -> None:
    await registry.promote(await push("good"), "tests", "")
    await registry.promote(await push("bad", scores_above_1), "tests", "")
    worker = await start()
    assert await detects(worker.serving) == f"{NAME}@good"
    (said,) = worker.said
    assert isinstance(said, ModelRefused)
    assert (said.model, said.serving) == (f"{NAME}@bad", f"{NAME}@good")
    await registry.rollback("tests", "")
    await worker.follower.look()
    assert worker.said == [said], "what serves already is no change"

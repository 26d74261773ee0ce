"""A supplier's runs from upload to receipt: ingest, inferencer and notifier over a real bus and real storage."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from azure.storage.blob.aio import BlobClient, ContainerClient
from click.testing import CliRunner, Result
from model_variants import OWN, variant

from fusebus.arrivals import event_of
from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings, ConsumerSettings, Context
from fusebus.console.__main__ import fusebus
from fusebus.contracts.messages import ImageAccepted, JobKind
from fusebus.contracts.outcomes import Outcome, Outgoing
from fusebus.contracts.topology import broker_configuration, image_subscriptions, upload_subscription
from fusebus.host import Secret
from fusebus.inferencer.codecs import Codecs
from fusebus.inferencer.handler import Detect
from fusebus.inferencer.loading import Running, open_folder
from fusebus.inferencer.serving import Serving
from fusebus.ingest.handler import Ingest
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import FinalKind, Ledger, LedgerSettings, RunRow, RunState
from fusebus.models.registry import Registry
from fusebus.models.settings import RegistrySettings
from fusebus.notifier import adapters
from fusebus.notifier.handler import Handler
from fusebus.notifier.ports import Ports
from fusebus.notifier.settings import NotifierSettings, SmtpSettings
from fusebus.notifier.thumbnails import shrink_jpeg
from fusebus.validation import Validator
from fusebus.vision import DEMO_MODEL, encode_jpeg

QUICK = ConsumerSettings(idle_wait_seconds=0.2, retry_seconds=0.1)
RUNNING = Running(provider="CPUExecutionProvider", intra_op_threads=1, max_batch=2, warm_up=False)
pytestmark = pytest.mark.timeout(240)


def photo(seed: int) -> bytes:
    """A small JPEG that no other seed makes."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)))


@dataclass
class System:
    """The three services as tasks; detection begins when it is told to."""

    supplier: str
    blobs: Blobs
    ledger: Ledger
    bus: Bus
    mail: Path
    upload_url: str
    environment: dict[str, str]
    serving: Serving
    detecting: asyncio.Event = field(default_factory=asyncio.Event)

    async def upload(self, name: str, data: bytes) -> None:
        """As the supplier does, with nothing but its link; then Event Grid's event."""
        container = layout.supplier_container(self.supplier)
        async with ContainerClient.from_container_url(self.upload_url) as box:
            await box.get_blob_client(name).upload_blob(data, overwrite=False)
        found = await self.blobs.properties(container, name)
        assert found is not None
        await self.bus.publisher().publish([Outgoing(message=event_of(container, found))])

    async def delete(self, name: str) -> None:
        await self.blobs.delete(layout.supplier_container(self.supplier), name)

    async def until(self, condition: Any, what: str, seconds: float = 100.0) -> Any:
        async with asyncio.timeout(seconds):
            while not (found := await condition()):
                await asyncio.sleep(0.05)
        assert found, what
        return found

    async def runs(self) -> list[RunRow]:
        return await self.ledger.runs(self.supplier)

    async def newest(self, state: RunState) -> RunRow:
        async def reached() -> RunRow | None:
            runs = await self.runs()
            return runs[0] if runs and runs[0].state is state else None

        return await self.until(reached, state.value)

    async def entered(self, count: int) -> None:
        """Until so many files of the newest run, which is open, are in the ledger, manifests too."""

        async def there() -> bool:
            runs = await self.runs()
            is_open = bool(runs) and runs[0].state is RunState.OPEN
            return is_open and sum(map(len, await self.ledger.contents(runs[0].run_id))) == count

        await self.until(there, f"{count} entered")

    async def stored(self, prefix: str) -> dict[str, bytes]:
        found = [blob.name async for blob in self.blobs.list(layout.RESULTS, prefix)]
        return {name: await self.blobs.read(layout.RESULTS, name, max_bytes=10**7) for name in found}

    async def summary(self, run: str) -> Any:
        return json.loads(await self.blobs.read(layout.RESULTS, f"report/{run}/summary.json", max_bytes=10**7))

    async def receipt(self, url: str, name: str = "receipt.json") -> Any:
        """As the supplier reads it, with the grant's second link."""
        container, _, token = url.partition("?")
        async with BlobClient.from_blob_url(f"{container}/{name}?{token}") as blob:
            return json.loads(await (await blob.download_blob()).readall())

    async def command(self, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner(env=self.environment).invoke, fusebus, list(arguments))


@pytest.fixture
async def system(
    start_broker: Any, blob_settings: BlobSettings, ledger_settings: LedgerSettings, supplier: str, tmp_path: Path
) -> AsyncIterator[System]:
    broker = start_broker(broker_configuration(lock_seconds=30.0))
    bus_settings = BusSettings(
        connection=Secret(broker.connection_string), ca_file=str(broker.ca_path), close_seconds=0.1
    )
    shared: dict[str, Any] = {"bus": bus_settings, "consumer": QUICK, "blobs": blob_settings, "ledger": ledger_settings}
    environment = {
        "FUSEBUS_BUS_CONNECTION": broker.connection_string,
        "FUSEBUS_BUS_CA_FILE": str(broker.ca_path),
        "FUSEBUS_BLOBS_CONNECTION": blob_settings.connection.reveal(),
        "FUSEBUS_LEDGER_CONNECTION": ledger_settings.connection.reveal(),
        "FUSEBUS_LEDGER_TABLE_PREFIX": ledger_settings.table_prefix,
        "FUSEBUS_MODELS_CONTAINER": f"models-{secrets.token_hex(6)}",
    }
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(Bus(bus_settings))
        blobs = await stack.enter_async_context(Blobs(blob_settings))
        ledger = await stack.enter_async_context(Ledger(ledger_settings))
        validator = await stack.enter_async_context(Validator(1))
        serving = await stack.enter_async_context(Serving(lambda: None))
        codecs = await stack.enter_async_context(Codecs(1))
        await ledger.create_tables()
        for container in (layout.RESULTS, layout.supplier_container(supplier)):
            await blobs.create_container(container)
        serving.switch(await open_folder(DEMO_MODEL, RUNNING))
        link = await blobs.supplier_grant(supplier, "g", datetime.now(UTC) + timedelta(days=1))
        found = System(supplier, blobs, ledger, bus, tmp_path / "mail", link.url, environment, serving)
        settings = IngestSettings(**shared, run_quiet_seconds=3600.0)
        ingest = Ingest(
            blobs=blobs, ledger=ledger, check=validator.check, clock=lambda: datetime.now(UTC), settings=settings
        )
        detect = Detect(store=blobs, models=serving, codecs=codecs, worker="w", retry_seconds=0.2)
        notifier = Handler(_ports(shared, blobs, ledger, bus, found.mail))

        async def detected(work: ImageAccepted, context: Context) -> Outcome:
            await found.detecting.wait()
            return await detect(work, context)

        consumed = (
            ("uploads", ("ingest", upload_subscription("0")), ingest),
            ("images", image_subscriptions(JobKind.DETECT), detected),
            ("results", ("notifier",), notifier),
        )
        tasks = [
            asyncio.create_task(bus.consume_lanes(topic, names, handler, stop=stop, settings=QUICK))
            for topic, names, handler in consumed
        ]
        try:
            yield found
        finally:
            stop.set()
            found.detecting.set()
            await asyncio.gather(*tasks)


def _ports(shared: dict[str, Any], blobs: Blobs, ledger: Ledger, bus: Bus, mail: Path) -> Ports:
    settings = NotifierSettings(
        **shared, smtp=SmtpSettings(), run_quiet_seconds=3600.0, recheck_seconds=0.3, mail_folder=mail
    )
    return Ports(
        settings=settings,
        ledger=ledger,
        results=blobs,
        dead_letters=bus,
        publish=bus.publisher().publish,
        mailer=adapters.mailer_of(settings),
        shrink=shrink_jpeg,
        clock=adapters.now,
        life=adapters.life(),
    )


async def test_a_delivery_closes_by_its_manifest_and_a_second_one_names_what_is_missing(system: System) -> None:
    system.detecting.set()
    reads = await system.blobs.receipt_grant(system.supplier, "g", datetime.now(UTC) + timedelta(days=1))
    await system.upload("van7/a.jpg", photo(1))
    await system.entered(1)  # uploads are validated side by side: the copy is whichever is entered second
    await system.upload("van7/copy.jpg", photo(1))
    await system.upload("van7/bad.jpg", b"no photo")
    await system.entered(3)
    await system.upload("van7/manifest.csv", b"name;note\r\na.jpg;first\r\ncopy.jpg;\r\nbad.jpg;\r\n")
    first = await system.newest(RunState.COMPLETE)
    assert first.close_requested_by == "manifest", "nothing else would have closed it within the hour"
    receipt = await system.receipt(reads.url)
    assert {one["name"]: one["outcome"] for one in receipt["files"]} == {
        "van7/a.jpg": "accepted",
        "van7/bad.jpg": "refused",
        "van7/copy.jpg": "duplicate",
    }
    assert (receipt["missing"], receipt["not_listed"], receipt["manifests"][0]["listed"]) == ([], [], 3)

    await system.upload("van8/again.jpg", photo(1))
    await system.upload("van8/new.jpg", photo(2))
    await system.upload("van8/manifest.json", b'{"files": ["../../etc/passwd"]}')
    await system.upload("van8/manifest-2.json", b'["new.jpg", "again.jpg", "gone.jpg"]')
    await system.entered(4)
    opened = (await system.runs())[0]
    told = await system.command("close", opened.run_id, "--json")
    assert (told.exit_code, json.loads(told.stdout)) == (0, {"run_id": opened.run_id, "was": "open"}), told.output
    second = await system.newest(RunState.COMPLETE)
    receipt = await system.receipt(reads.url)
    assert (receipt["run_id"], [one["name"] for one in receipt["missing"]]) == (second.run_id, ["van8/gone.jpg"])
    twin = next(one for one in receipt["files"] if one["name"] == "van8/again.jpg")
    assert (twin["outcome"], twin["duplicate_of"], twin["duplicate_of_run"]) == (
        "duplicate",
        "van7/a.jpg",
        first.run_id,
    )
    refused = next(one for one in receipt["manifests"] if one["reason"])
    assert (refused["name"], refused["reason"]) == ("van8/manifest.json", "manifest_bad_name")
    summary = await system.summary(second.run_id)
    [duplicate] = summary["duplicates"]
    earlier = await system.summary(first.run_id)
    assert duplicate["of_result"] == earlier["pictures"][0]["result"], "it points to the earlier result"
    assert list(
        await system.stored(f"json/{second.run_id[:4]}-{second.run_id[4:6]}-{second.run_id[6:8]}/{second.run_id}/")
    ) == [summary["pictures"][0]["result"]], "and nothing was computed for it"
    index = await system.receipt(reads.url, "receipts.json")
    assert [one["run_id"] for one in index["receipts"]] == [second.run_id, first.run_id]
    assert any("gone.jpg" in path.read_text() for path in system.mail.glob("*.eml"))


async def test_of_twins_whose_first_upload_was_deleted_one_is_analysed_and_ends_the_other(system: System) -> None:
    await system.upload("first.jpg", photo(1))
    await system.entered(1)
    await system.upload("twin.jpg", photo(1))
    await system.upload("third.jpg", photo(1))

    async def waiting() -> bool:
        rows = (await system.ledger.contents((await system.runs())[0].run_id)).uploads
        return sum(bool(row.waits_for) for row in rows) == 2

    await system.until(waiting, "the twins wait")
    run = (await system.runs())[0]
    await system.delete("first.jpg")
    system.detecting.set()
    assert (await system.command("close", run.run_id)).exit_code == 0
    await system.newest(RunState.COMPLETE)
    finals = {row.blob_name: row.final for row in await system.ledger.uploads(run.run_id)}
    kinds = {name: final.kind for name, final in finals.items() if final}
    assert kinds.pop("first.jpg") is FinalKind.REJECTED
    assert sorted(kinds.values()) == [FinalKind.ANALYSED, FinalKind.DUPLICATE], "one takes the photo over"


@pytest.mark.long
async def test_photos_are_analysed_again_with_a_named_model_beside_the_old_results(
    system: System, tmp_path: Path
) -> None:
    for command in (("close", "no-such-run"), ("close", "a/../b"), ("reprocess", "no-such-run", "--model", "m@1")):
        told = await system.command(*command)
        assert (told.exit_code, "there is no run" in told.output) == (2, True), told.output
    system.detecting.set()
    for name, data in (("a.jpg", photo(1)), ("b.jpg", photo(2)), ("twin.jpg", photo(1)), ("bad.jpg", b"no")):
        await system.upload(name, data)
    await system.entered(4)
    run = (await system.runs())[0]
    early = await system.command("reprocess", run.run_id, "--model", "demo@2")
    assert (early.exit_code, "wait until it is complete" in early.output) == (2, True), early.output
    await system.command("close", run.run_id)
    await system.newest(RunState.COMPLETE)
    before = await system.stored("")

    folder = await asyncio.to_thread(variant, tmp_path / "model", "2")
    registry = Registry(system.blobs, RegistrySettings(container=system.environment["FUSEBUS_MODELS_CONTAINER"]))
    model = (await registry.push(folder, "tests", "")).ref
    await registry.push(DEMO_MODEL, "tests", "")
    await registry.promote(OWN, "tests", "")
    refused = await system.command("reprocess", run.run_id, "--model", model)
    assert (refused.exit_code, f"{model} does not serve" in refused.output) == (2, True), refused.output
    await registry.promote(model, "tests", "", percent=1)
    system.serving.switch(system.serving.current, await open_folder(folder, RUNNING))  # as its follower does

    dry = await system.command("reprocess", run.run_id, "--model", model, "--dry-run", "--json")
    told = json.loads(dry.stdout)
    assert (told["images"], told["run_id"], told["left_out"]) == (2, "", {"duplicate": 1, "refused": 1})
    system.detecting.clear()
    answers = [await system.command("reprocess", run.run_id, "--model", model, "--json") for _ in range(2)]
    assert [answer.exit_code for answer in answers] == [0, 0], answers[0].output
    new_run = {json.loads(answer.stdout)["run_id"] for answer in answers}
    assert len(new_run) == 1, "the same again is the same run"
    first, second = [json.loads(answer.stdout) for answer in answers]
    assert [(one["outstanding"], one["sent"]) for one in (first, second)] == [(2, 2), (2, 0)], "workers have them"
    system.detecting.set()
    new = await system.newest(RunState.COMPLETE)
    assert {new.run_id} == new_run
    assert (new.reprocess_of, new.model) == (run.run_id, model)
    after = await system.stored("")
    assert {name: after[name] for name in before} == before, "nothing old is overwritten"
    summary, old = await system.summary(new.run_id), await system.summary(run.run_id)
    assert {one["model"] for one in summary["pictures"]} == {model} != {one["model"] for one in old["pictures"]}
    assert (summary["model"], summary["reprocess_of"]) == (model, run.run_id)
    assert {one["result"] for one in summary["pictures"]}.isdisjoint(one["result"] for one in old["pictures"])
    assert any(f"analysed again with {model}" in " ".join(path.read_text().split()) for path in system.mail.glob("*"))
    same = await system.command("reprocess", run.run_id, "--model", OWN)
    assert (same.exit_code, "2 analysed with it before" in same.output) == (3, True), same.output
    twice = await system.command("reprocess", new.run_id, "--model", OWN)
    assert (twice.exit_code, "is itself an analysis" in twice.output) == (2, True)
    done = json.loads((await system.command("reprocess", run.run_id, "--model", model, "--json")).stdout)
    assert (done["run_id"], done["outstanding"]) == (new.run_id, 0)
    assert (
        msgspec.json.decode(
            await system.blobs.read(
                layout.receipt_container(system.supplier), layout.receipt_name(new.run_id, "json"), max_bytes=10**6
            )
        )["analysed_again"]
        == run.run_id
    )

"""The inferencer behind a real registry (Azurite), with the real onnxruntime and, as a process, a real broker."""

import asyncio
import hashlib
import os
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.bus import Bus, BusSettings, Context
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.identity import image_id, run_id, upload_id
from fusebus.contracts.messages import (
    BlobReference,
    ImageAccepted,
    ImageAnalysed,
    JobKind,
    Lane,
    Message,
    ModelChanged,
    ModelRefused,
)
from fusebus.contracts.outcomes import Done, Outcome, Outgoing, done
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret
from fusebus.host.settings import environment_of
from fusebus.inferencer.codecs import Codecs
from fusebus.inferencer.comparison.commands import compare_models
from fusebus.inferencer.following import Follower
from fusebus.inferencer.handler import Detect
from fusebus.inferencer.loading import Loader, Running, open_folder
from fusebus.inferencer.serving import Serving
from fusebus.ledger import ImageFacts, Ledger, LedgerSettings, UploadEntry
from fusebus.models import describe_file, load_manifest, write_manifest
from fusebus.models.registry import Registry
from fusebus.models.settings import GIB, RegistrySettings
from fusebus.notifier import finals
from fusebus.vision import DEMO_MODEL, encode_jpeg
from fusebus.vision.boards import draw_board

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
NAME, OWN = load_manifest(DEMO_MODEL).name, load_manifest(DEMO_MODEL).ref
EDGE = load_manifest(DEMO_MODEL).image_size
RUNNING = Running(provider="CPUExecutionProvider", intra_op_threads=1, max_batch=2, warm_up=False)
Edit = Callable[[ModelProto], None]


def variant(into: Path, version: str, edit: Edit = lambda _: None, **fields: Any) -> Path:
    """The demo model under another version, its graph edited and its manifest true of it."""
    into.mkdir()
    manifest = load_manifest(DEMO_MODEL)
    graph = onnx.load(DEMO_MODEL / manifest.file)
    graph.doc_string = version
    edit(graph)
    onnx.save(graph, into / manifest.file)
    files = {manifest.file: describe_file(into / manifest.file)}
    write_manifest(into, msgspec.structs.replace(manifest, version=version, files=files, **fields))
    return into


def before_scores(model: ModelProto, nodes: Sequence[Any], constants: dict[str, np.ndarray], joined: str) -> None:
    """Add `nodes`, which make `joined` from `images`, and combine it with the scores: so they are not left out."""
    graph = model.graph
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == "scores":
                node.output[index] = "plain_scores"
    graph.node.extend([*nodes, helper.make_node("Max", ["plain_scores", joined], ["scores"])])
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())


def random_numbers(model: ModelProto) -> None:
    node = helper.make_node("RandomUniform", [], ["noise"], shape=[1, 1])
    before_scores(model, [node], {}, "noise")


def scores_above_1(model: ModelProto) -> None:
    before_scores(model, [], {"seven": np.full((1, 1), 7, np.float32)}, "seven")


def index_out_of_range(model: ModelProto) -> None:
    """Only known once a picture is seen: its brightest value is the index."""
    nodes = [
        helper.make_node("Cast", ["images"], ["whole"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["whole", "axes"], ["brightest"], keepdims=0),
        helper.make_node("Gather", ["few", "brightest"], ["found"], axis=0),
        helper.make_node("Unsqueeze", ["found", "last"], ["column"]),
    ]
    constants = {"axes": np.array([1, 2, 3]), "few": np.zeros(8, np.float32), "last": np.array([1])}
    before_scores(model, nodes, constants, "column")


def memory_bomb(model: ModelProto) -> None:
    """One value of 3.6 GB, less than what the inspection allows."""
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "tall"], ["column"]),
        helper.make_node("MatMul", ["column", "wide"], ["bomb"]),
        helper.make_node("ReduceMin", ["bomb", "axes"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "nothing"], ["zero"]),
        helper.make_node("Unsqueeze", ["zero", "last"], ["harmless"]),
    ]
    constants = {
        "tall": np.array([-1, EDGE * EDGE * 3, 1]),
        "wide": np.ones((1, 900_000_000 // (EDGE * EDGE * 3)), np.float32),
        "axes": np.array([1, 2]),
        "nothing": np.zeros((), np.float32),
        "last": np.array([1]),
    }
    before_scores(model, nodes, constants, "harmless")


def slow(model: ModelProto) -> None:
    """A TFLOP a picture: no loop is needed to take for ever."""
    count = 10**12 // (6 * EDGE**3)
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "square"], ["product_0"]),
        *(helper.make_node("MatMul", [f"product_{n}", "weights"], [f"product_{n + 1}"]) for n in range(count)),
        helper.make_node("ReduceMin", [f"product_{count}", "axes"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "nothing"], ["zero"]),
        helper.make_node("Unsqueeze", ["zero", "last"], ["harmless"]),
    ]
    constants = {
        "square": np.array([-1, 3 * EDGE, EDGE]),
        "weights": np.eye(EDGE, dtype=np.float32),
        "axes": np.array([1, 2]),
        "nothing": np.zeros((), np.float32),
        "last": np.array([1]),
    }
    before_scores(model, nodes, constants, "harmless")


@pytest.fixture
async def blobs(blob_settings: BlobSettings) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        await opened.create_container(layout.RESULTS)
        yield opened


@pytest.fixture
def models(tmp_path: Path) -> RegistrySettings:
    """A registry of this test's own."""
    return RegistrySettings(
        container=f"models-{secrets.token_hex(6)}",
        watch_seconds=0.2,
        load_timeout_seconds=40,
        load_memory_bytes=2 * GIB,
        cache=tmp_path / "cache",
    )


@pytest.fixture
def registry(blobs: Blobs, models: RegistrySettings) -> Registry:
    return Registry(blobs, models)


@pytest.fixture
async def push(registry: Registry, tmp_path: Path) -> Callable[..., Any]:
    async def pushed(version: str, edit: Edit = lambda _: None, **fields: Any) -> str:
        folder = await asyncio.to_thread(variant, tmp_path / f"made-{version}", version, edit, **fields)
        return (await registry.push(folder, "tests", "")).ref

    return pushed


@dataclass
class Worker:
    """What an inferencer has, in this process."""

    serving: Serving
    follower: Follower
    said: list[Message] = field(default_factory=list)

    @property
    def refs(self) -> tuple[str | None, str | None]:
        return tuple(found.ref if found else None for found in (self.serving.current, self.serving.canary))


@pytest.fixture
async def start(registry: Registry, models: RegistrySettings) -> AsyncIterator[Callable[..., Any]]:
    async with Serving(lambda: None) as serving:

        async def started(**limits: Any) -> Worker:
            said: list[Message] = []

            async def publish(outgoing: Sequence[Outgoing]) -> None:
                said.extend(found.message for found in outgoing)

            settings = msgspec.structs.replace(models, **limits)
            loader = Loader(
                source=registry,
                running=RUNNING,
                cache=settings.cache,
                seconds=settings.load_timeout_seconds,
                memory_bytes=settings.load_memory_bytes,
            )
            follower = Follower(
                registry=registry,
                serving=serving,
                load=loader,
                open_own=lambda: open_folder(DEMO_MODEL, RUNNING),
                publish=publish,
                worker="test/1",
            )
            await follower.start()
            return Worker(serving, follower, said)

        yield started


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


# Images: through the handler, and as a process on a broker.


@pytest.fixture
async def upload(blobs: Blobs, supplier: str) -> Callable[..., Any]:
    container = layout.supplier_container(supplier)
    await blobs.create_container(container)

    async def uploaded(data: bytes, name: str, run: str = "") -> ImageAccepted:
        await blobs.write(container, name, data, "image/jpeg")
        properties = await blobs.properties(container, name)
        assert properties is not None
        upload, sha256 = upload_id(container, name, properties.etag), hashlib.sha256(data).hexdigest()
        reference = BlobReference(
            container=container, name=name, etag=properties.etag, sha256=sha256, size=properties.size
        )
        return ImageAccepted(
            upload_id=upload,
            run_id=run or run_id(supplier, NOW, upload),
            supplier=supplier,
            image_id=image_id(supplier, sha256),
            job_kind=JobKind.DETECT,
            lane=Lane.NORMAL,
            deadline=NOW,
            blob=reference,
            width=400,
            height=300,
            format="jpeg",
            accepted_at=NOW,
        )

    return uploaded


def photo(seed: int) -> bytes:
    return encode_jpeg(draw_board(seed, (400, 300)).image)


async def test_an_image_that_two_versions_saw_has_two_analyses_and_one_final(
    registry: Registry, push: Any, start: Any, upload: Any, blobs: Blobs, ledger_settings: LedgerSettings
) -> None:
    """The first try stored its results but was not settled; the retry came after a promotion."""
    await registry.promote(await push("1"), "tests", "")
    worker = await start()
    work = await upload(photo(3), "board.jpg")
    async with Codecs(1) as codecs, Ledger(ledger_settings) as ledger:
        await ledger.create_tables()
        work = msgspec.structs.replace(work, run_id=(await ledger.enter_upload(entry_of(work), NOW)).run_id)
        handler = Detect(store=blobs, models=worker.serving, codecs=codecs, worker="test/1")
        first = await analysed(handler, work)
        await registry.promote(await push("2", score_thresholds=(0.9,)), "tests", "")
        await worker.follower.look()
        second = await analysed(handler, work)
        assert (first.model, second.model) == (f"{NAME}@1", f"{NAME}@2")
        assert first.analysis_id != second.analysis_id
        assert Envelope(message=first).message_id == Envelope(message=second).message_id, "the topic keeps one of them"
        for final in (first, second, first):  # where the topic kept both after all, in any order
            assert isinstance(await finals.record(final, ledger), Done)
        (row,) = await ledger.uploads(work.run_id)
    assert row.final is not None
    assert (row.final.model, row.final.analysis_id, row.final.result) == (first.model, first.analysis_id, first.result)
    for final in (first, second):
        text = await blobs.read(final.result.container, final.result.name, max_bytes=10**7)
        said = msgspec.json.decode(text)
        assert (said["analysis_id"], f"{said['model']['name']}@{said['model']['version']}") == (
            final.analysis_id,
            final.model,
        )
        assert len(said["detections"]) == final.detections


@pytest.mark.timeout(240)
async def test_two_versions_are_compared_on_a_runs_photos_taking_what_a_canary_stored(
    registry: Registry,
    push: Any,
    start: Any,
    upload: Any,
    blobs: Blobs,
    blob_settings: BlobSettings,
    ledger_settings: LedgerSettings,
    models: RegistrySettings,
    tmp_path: Path,
) -> None:
    old, new = await push("1"), await push("2", score_thresholds=(0.8,))
    await registry.promote(old, "tests", "")
    await registry.promote(new, "tests", "", percent=50)
    worker = await start()
    seen: Counter[str] = Counter()
    async with Codecs(1) as codecs, Ledger(ledger_settings) as ledger:
        await ledger.create_tables()
        handler = Detect(store=blobs, models=worker.serving, codecs=codecs, worker="test/1")
        for seed in range(40):  # the share is drawn by an id that differs in each run of this test
            if len(seen) == 2 and seen.total() >= 4:
                break
            work = await upload(photo(seed % 4) + bytes([seed]), f"{seed}.jpg")
            run = (await ledger.enter_upload(entry_of(work), NOW)).run_id
            final = await analysed(handler, msgspec.structs.replace(work, run_id=run))
            assert isinstance(await finals.record(msgspec.structs.replace(final, run_id=run), ledger), Done)
            seen[final.model] += 1
    assert seen.keys() == {old, new}, "the canary had its share"
    services = environment_of(blob_settings, "blobs") | environment_of(ledger_settings, "ledger")
    arguments = [old, new, "--run", run, "--out", str(tmp_path / "out"), "--stored", "--json"]

    runner = CliRunner(env=services | environment_of(models, "models"))
    ran = await asyncio.to_thread(runner.invoke, compare_models, arguments)
    assert ran.exit_code == 0, ran.output
    stored = msgspec.json.decode(ran.stdout)
    assert (stored["photos"], stored["skipped"]) == (seen.total(), {})
    assert (stored["first"]["stored"], stored["second"]["stored"]) == (seen[old], seen[new])
    assert (stored["matched"] + stored["only_first"], stored["only_second"]) == (stored["first"]["detections"], 0)
    assert stored["first"]["milliseconds"]["p50"] > 0


def entry_of(work: ImageAccepted) -> UploadEntry:
    """What ingest enters."""
    return UploadEntry(
        upload_id=work.upload_id,
        supplier=work.supplier,
        container=work.blob.container,
        blob_name=work.blob.name,
        blob_etag=work.blob.etag,
        size=work.blob.size,
        uploaded_at=NOW,
        image=ImageFacts(image_id=work.image_id, sha256=work.blob.sha256, format="jpeg", width=400, height=300),
    )


async def analysed(handler: Detect, work: ImageAccepted) -> ImageAnalysed:
    outcome = await handler(work, Context(envelope=Envelope(message=work)))
    assert isinstance(outcome, Done)
    (outgoing,) = outcome.publish
    assert isinstance(outgoing.message, ImageAnalysed)
    return outgoing.message


@pytest.fixture
def bus_settings(start_broker: Any) -> BusSettings:
    broker = start_broker(broker_configuration())
    return BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path))


@pytest.fixture
def environment(bus_settings: BusSettings, blob_settings: BlobSettings, models: RegistrySettings) -> dict[str, str]:
    own = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    services = environment_of(bus_settings, "bus") | environment_of(blob_settings, "blobs")
    return {
        **own,
        **services,
        **environment_of(models, "models"),
        "FUSEBUS_INFERENCER_FOLLOW_REGISTRY": "true",
        "FUSEBUS_INFERENCER_IDLE_EXIT_SECONDS": "3",
    }


class Listener:
    """Collects what is published on results and fleet."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stop = asyncio.Event()
        self.finals: list[ImageAnalysed] = []
        self.fleet: list[Message] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Listener":
        for topic in ("results", "fleet"):
            consuming = self._bus.consume(topic, "notifier", self._take, stop=self._stop)
            self._tasks.append(asyncio.create_task(consuming))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _take(self, message: Any, context: Context) -> Outcome:
        (self.finals if isinstance(message, ImageAnalysed) else self.fleet).append(message)
        return done()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():
                await asyncio.sleep(0.05)


@pytest.mark.timeout(240)  # three models are tried, one after the other
async def test_a_promotion_in_the_middle_of_a_stream_drops_no_image_and_switches_the_version(
    environment: dict[str, str],
    bus_settings: BusSettings,
    registry: Registry,
    push: Any,
    upload: Any,
    tmp_path: Path,
) -> None:
    old, new, bad = await push("1"), await push("2"), await push("3", scores_above_1)
    await registry.promote(old, "tests", "")
    works = [await upload(photo(seed), f"{seed}.jpg") for seed in range(24)]
    log = tmp_path / "log"
    async with Bus(bus_settings) as bus, Listener(bus) as listener:
        with log.open("wb") as errors:
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "fusebus.inferencer", env=environment, stderr=errors
            )
        feeding = asyncio.create_task(feed(bus, works, listener))
        await listener.until(lambda: len(listener.finals) >= 3)
        await registry.promote(new, "ada", "")
        await listener.until(lambda: any(final.model == new for final in listener.finals))
        await registry.promote(bad, "bob", "")
        await listener.until(lambda: len(listener.fleet) >= 2)
        listener.enough = True
        sent = await feeding
        await listener.until(lambda: len(listener.finals) >= sent)
        assert await asyncio.wait_for(worker.wait(), 30) == 0, log.read_text()
        depth = await bus.depth("images", "detect")
    counts = Counter(final.upload_id for final in listener.finals)
    assert (len(counts), set(counts.values())) == (sent, {1}), "every image once"
    versions = [final.model for final in sorted(listener.finals, key=lambda final: final.analysed_at)]
    assert set(versions) == {old, new}
    late = versions.index(new)
    assert set(versions[late + 8 :]) == {new}, "no more than the images that were in hand saw the old version"
    changed, refused = listener.fleet
    assert isinstance(changed, ModelChanged)
    assert (changed.previous, changed.current, changed.changed_by) == (old, new, "ada")
    assert isinstance(refused, ModelRefused)
    assert (refused.model, refused.serving, refused.reason) == (bad, new, "outputs")
    assert depth is not None
    assert (depth.active, depth.dead_letter) == (0, 0)


async def feed(bus: Bus, works: Sequence[ImageAccepted], listener: Any) -> int:
    """A steady stream until the listener has seen enough; how many were sent. Each is an upload of its own."""
    sent = 0
    while not getattr(listener, "enough", False):
        work = works[sent % len(works)]
        upload = f"{sent:032x}"
        await bus.publisher().publish([Outgoing(message=msgspec.structs.replace(work, upload_id=upload))])
        sent += 1
        while sent - len(listener.finals) > 12:
            await asyncio.sleep(0.02)
    return sent


async def test_a_worker_that_is_told_to_stop_while_its_model_loads_ends_with_0(
    environment: dict[str, str], registry: Registry, push: Any, tmp_path: Path
) -> None:
    await registry.promote(await push("slow", slow), "tests", "")
    log = tmp_path / "log"
    with log.open("wb") as errors:
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fusebus.inferencer", env=environment, stderr=errors
        )
    async with asyncio.timeout(30):
        while "loading model" not in log.read_text():
            await asyncio.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(worker.wait(), 15) == 0, log.read_text()

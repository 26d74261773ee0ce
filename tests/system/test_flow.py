"""The whole flow on the embedded stack: real broker, storage, Batch, services and SDKs."""

import email
import email.policy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fusebus.blobs import Blobs
from fusebus.blobs.layout import RESULTS, report_name, supplier_container
from fusebus.bus import Bus
from fusebus.contracts.messages import BlobCreated, BlobCreatedData
from fusebus.contracts.outcomes import Outgoing
from fusebus.ledger import FinalKind, Ledger, RunState
from fusebus.stack.delivery import Delivered, Follower
from fusebus.vision.boards import draw_board

FIRST_BOARD = (
    700_009  # three boards, one of them without a neutral, that the demo model gets right: it errs on one in forty
)
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]
MAX_BYTES = 10_000_000


def mails_of(system: Any, run_id: str) -> list[email.message.EmailMessage]:
    """Every mail in the folder that speaks of a run."""
    mails = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in system.mail.glob("*.eml")
    ]
    return [mail for mail in mails if run_id in str(mail["Message-ID"]) + str(mail.get_body(("plain",)))]


def holds_together(system: Any, delivered: Delivered, count: int) -> None:
    """What must be true after every delivery, whatever failed on its way."""
    last = delivered.last
    assert len(last.uploads) == len({row.upload_id for row in last.uploads}) == count
    assert all(row.final is not None for row in last.uploads)
    assert [run.state for run in last.runs] == [RunState.COMPLETE] * len(last.runs)
    assert all(queue.active == 0 for queue in last.queues)
    assert last.nodes.present == 0
    for run in last.runs:
        assert len(mails_of(system, run.run_id)) == 1


async def test_a_delivery_becomes_pictures_json_a_report_and_one_mail(
    system: Any, photographs: Callable[[int, int], list[bytes]], folder_with: Callable[[dict[str, bytes]], Path]
) -> None:
    sound = photographs(FIRST_BOARD, 3)
    files = {f"van 7/board {number}.jpg": data for number, data in enumerate(sound)}
    files |= {"cut.jpg": sound[0][: len(sound[0]) // 2], "notes.jpg": b"no picture", "zz again.jpg": sound[1]}
    delivered = await system.deliver("whole-flow", folder_with(files))
    holds_together(system, delivered, len(files))
    finals = {row.blob_name: row.final for row in delivered.last.uploads if row.final}
    kinds = {name: final.kind for name, final in finals.items()}
    assert kinds["cut.jpg"] == kinds["notes.jpg"] == FinalKind.REJECTED
    assert sorted(kinds[name] for name in ("van 7/board 1.jpg", "zz again.jpg")) == ["analysed", "duplicate"]
    assert (delivered.analysed, delivered.rejected, delivered.failed) == (3, 3, 0)
    assert finals["cut.jpg"].reason == "damaged"
    assert finals["notes.jpg"].explanation.endswith(".")
    async with Blobs(system.settings.blobs) as blobs:
        for name, final in finals.items():
            if final.kind is FinalKind.ANALYSED and name.startswith("van 7"):
                await _agrees_with_the_truth(blobs, name, final)
        reports = [report_name(run.run_id) for run in delivered.last.runs]  # a slow machine makes several of them
        pages = [(await blobs.read(RESULTS, name, max_bytes=MAX_BYTES)).decode() for name in reports]
    assert any("van 7/board 0.jpg" in page for page in pages)
    assert any("notes.jpg" in page for page in pages)
    mail = mails_of(system, delivered.last.runs[0].run_id)[0]
    assert {"text/plain", "text/html"} <= {part.get_content_type() for part in mail.walk()}


async def _agrees_with_the_truth(blobs: Blobs, name: str, final: Any) -> None:
    """The result names the photo's own neutrals: as many, where they are."""
    result = json.loads(await blobs.read(RESULTS, final.result.name, max_bytes=MAX_BYTES))
    picture = await blobs.read(RESULTS, final.annotated.name, max_bytes=MAX_BYTES)
    assert picture.startswith(b"\xff\xd8")
    truth = draw_board(FIRST_BOARD + int(name.removesuffix(".jpg").rpartition(" ")[2]), (640, 480)).boxes
    found = [detection["box"] for detection in result["detections"]]
    assert len(found) == final.detections == len(truth)
    for box in truth:
        assert max(_overlap(box, other) for other in found) > 0.5
    assert (result["width"], result["height"]) == (640, 480)


def _overlap(one: Any, other: Any) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return float(common / (areas - common))


@pytest.mark.parametrize(
    ("etag", "reason"), [("0x0000", "blob_changed"), ("", "blob_vanished")], ids=["changed", "vanished"]
)
async def test_a_blob_that_is_not_what_its_event_says_is_rejected_with_that_reason(
    system: Any, photographs: Callable[[int, int], list[bytes]], etag: str, reason: str
) -> None:
    supplier = f"event-{reason.replace('_', '-')}"
    container = supplier_container(supplier)
    event = BlobCreated(
        id="1",
        source="test",
        subject=f"/blobServices/default/containers/{container}/blobs/board.jpg",
        time=datetime.now(UTC),
        data=BlobCreatedData(e_tag=etag or "0x1"),
    )
    settings = system.settings
    async with Blobs(settings.blobs) as blobs, Bus(settings.bus) as bus, Ledger(settings.ledger) as ledger:
        await blobs.create_container(container)
        if etag:
            await blobs.write(container, "board.jpg", photographs(700_000, 1)[0], "image/jpeg")
        await bus.publisher().publish([Outgoing(message=event)])
        moment = await Follower(system.stack, ledger, bus, supplier).until(
            lambda moment: any(row.final and row.final.reason == reason for row in moment.uploads), lambda _: None
        )
    assert all(row.final is None or row.final.kind is not FinalKind.FAILED for row in moment.uploads)

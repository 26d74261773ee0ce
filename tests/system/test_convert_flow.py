"""Uploads that are converted: the whole flow on an embedded stack of its own, with a worker killed in the middle."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from fusebus.blobs import Blobs
from fusebus.blobs.layout import RESULTS
from fusebus.console.photos import photos_in
from fusebus.console.settings import console_settings
from fusebus.ledger import FinalKind
from fusebus.stack.delivery import Moment, deliver
from fusebus.stack.stack import Stack, StackOptions

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]
PHOTOS = 12


async def test_a_delivery_is_converted_by_two_workers_though_one_is_killed(
    photographs: Callable[[int, int], list[bytes]], folder_with: Callable[[dict[str, bytes]], Path], tmp_path: Path
) -> None:
    sound = {f"board {number:02}.jpg": data for number, data in enumerate(photographs(600_001, PHOTOS))}
    folder = folder_with(sound | {"cut.jpg": sound["board 00.jpg"][:9_000]})
    options = StackOptions(folder=tmp_path / "stack", lock_seconds=15.0, run_quiet_seconds=4.0, converters=2)
    killed: list[int] = []
    async with Stack(options) as stack:
        settings = console_settings(stack.settings_file)

        def look(moment: Moment) -> None:
            worker = stack.children["convert-1"].process
            if not killed and worker is not None and any(row.final for row in moment.uploads):
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(worker.pid)

        delivered = await deliver(
            stack,
            settings,
            "converted-flow",
            photos_in(folder),
            close_when_entered=False,
            on_upload=lambda _: None,
            on_look=look,
        )
        finals = {row.blob_name: row.final for row in delivered.last.uploads if row.final}
        assert finals.keys() == {*sound, "cut.jpg"}
        assert finals["cut.jpg"].kind is FinalKind.REJECTED
        async with Blobs(settings.blobs) as blobs:
            for name, data in sound.items():
                final = finals[name]
                assert final.kind is FinalKind.CONVERTED
                assert final.annotated is not None
                png = await blobs.read(RESULTS, final.annotated.name, max_bytes=10**8)
                shown = await asyncio.to_thread(cv2.imdecode, np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
                np.testing.assert_array_equal(shown, simplejpeg.decode_jpeg(data, "RGB"))
            made = [blob.name async for blob in blobs.list(RESULTS, "converted/")]
        assert len(made) == PHOTOS
    assert killed

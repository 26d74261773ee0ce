"""Plain values for the inferencer's tests: an accepted image, a store in a dict, a model that sees what it is told."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np
import pytest

from fusebus.blobs import BlobChanged, BlobTooLarge, BlobVanished
from fusebus.bus import Context
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.identity import image_id, run_id, upload_id
from fusebus.contracts.messages import BlobReference, ImageAccepted, JobKind, Lane
from fusebus.inferencer.backends import Outputs
from fusebus.inferencer.model import Answer
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL, encode_jpeg, inspect
from fusebus.vision.boards import draw_board

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


class DictStore:
    """Blobs in a dict with their ETags; `written` counts the writes."""

    def __init__(self) -> None:
        self.content: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.written: list[str] = []

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes:
        if (container, name) not in self.content:
            raise BlobVanished(f"{container}/{name}")
        found, data = self.content[container, name]
        if etag and etag != found:
            raise BlobChanged(f"{container}/{name}")
        if len(data) > max_bytes:
            raise BlobTooLarge(f"{container}/{name}")
        return data

    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None:
        self.written.append(f"{name} {content_type}")
        self.content[container, name] = (hashlib.sha256(data).hexdigest(), data)


class ToldModel:
    """Two fuse neutrals in every picture; the only version there is."""

    def __init__(self) -> None:
        self.manifest = load_manifest(DEMO_MODEL)
        self.images: list[str] = []

    @contextlib.contextmanager
    def lease(self, image_id: str, wanted: str = "") -> Iterator["ToldModel"]:
        self.images.append(image_id)
        yield self

    async def detect(self, image: np.ndarray, *_: object) -> Answer:
        assert image.shape == (self.manifest.image_size, self.manifest.image_size, 3)
        masks = np.zeros((3, 64, 64), np.uint8)
        masks[0, 16:32, 8:24] = masks[1, 16:32, 32:48] = 255
        boxes = np.array([[8, 16, 24, 32], [32, 16, 48, 32], [0, 0, 64, 64]], np.float32) / 64
        scores = np.array([0.91234567, 0.7, 0.01], np.float32)
        return Answer(Outputs(scores, boxes, masks, np.zeros(3, np.int64)), 0.25, 0.5)


@pytest.fixture
def store() -> DictStore:
    return DictStore()


@pytest.fixture
def told_model() -> ToldModel:
    return ToldModel()


@pytest.fixture(scope="session")
def photo() -> bytes:
    return encode_jpeg(draw_board(3, (800, 600)).image)


@pytest.fixture
def accept(store: DictStore) -> Callable[..., ImageAccepted]:
    """Puts a file into the store, and returns what ingest would say of it."""

    def accepted(data: bytes, name: str = "board 1.jpg", sha256: str | None = None) -> ImageAccepted:
        sha256 = sha256 or hashlib.sha256(data).hexdigest()
        store.content["in-north", name] = ("0x1", data)
        header = inspect(data)
        upload = upload_id("in-north", name, "0x1")
        return ImageAccepted(
            upload_id=upload,
            run_id=run_id("north", NOW, upload),
            supplier="north",
            image_id=image_id("north", sha256),
            job_kind=JobKind.DETECT,
            lane=Lane.NORMAL,
            deadline=NOW,
            blob=BlobReference(container="in-north", name=name, etag="0x1", sha256=sha256, size=len(data)),
            width=header.width,
            height=header.height,
            format=header.format,
            accepted_at=NOW,
        )

    return accepted


@pytest.fixture
def context_of() -> Callable[[ImageAccepted], Context]:
    return lambda message: Context(envelope=Envelope(message=message))

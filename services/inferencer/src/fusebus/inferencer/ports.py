"""What the handler needs of the world, as narrow as it is: storage and models."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fusebus.inferencer.model import Answer
from fusebus.inferencer.urgency import Urgency
from fusebus.models import ModelManifest


class Store(Protocol):
    """What we need of fusebus.blobs.Blobs."""

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes:
        """See Blobs.read."""
        ...

    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None:
        """See Blobs.write."""
        ...


class Model(Protocol):
    """What we need of serving.Served: one version."""

    @property
    def manifest(self) -> ModelManifest:
        """Of the version that runs."""
        ...

    async def detect(self, image: NDArray[np.uint8], urgency: Urgency | None = None) -> Answer:
        """See ModelThread.detect."""
        ...


class Models(Protocol):
    """What we need of serving.Serving."""

    def lease(self, image_id: str, wanted: str = "") -> AbstractContextManager[Model]:
        """See Serving.lease."""
        ...

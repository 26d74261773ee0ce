"""What serves now: one model version or two, and how one takes another's place without an image being dropped."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fusebus.inferencer.model import Answer, ModelBroken, ModelThread, NotServed, PictureFailed
from fusebus.inferencer.urgency import Urgency
from fusebus.models.manifest import ModelManifest

_log = logging.getLogger(__name__)

Choose = Callable[[str], str]
"""From an image's id to the version (`name@version`) that shall see it."""


@dataclass(eq=False, kw_only=True)
class Served:
    """One version in its own model thread, with the images that it is still needed for."""

    manifest: ModelManifest
    manifest_sha256: str
    """Of manifest.json, and so of everything that it lists: two versions may share a name, never this."""
    thread: ModelThread
    images: int = 0

    @property
    def ref(self) -> str:
        """`name@version`, as everywhere."""
        return self.manifest.ref

    async def detect(self, image: NDArray[np.uint8], urgency: Urgency | None = None) -> Answer:
        """See ModelThread.detect."""
        return await self.thread.detect(image, urgency)


class Lease:
    """One image's hold on a version. A class: contextlib's generators cost two microseconds more for each image."""

    __slots__ = ("_served", "_serving")

    def __init__(self, serving: Serving, served: Served) -> None:
        self._serving = serving
        self._served = served

    def __enter__(self) -> Served:
        self._served.images += 1
        return self._served

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, ModelBroken | PictureFailed):
                self._serving.judge(self._served, error)
        finally:
            self._served.images -= 1
            if self._served is not self._serving.current:
                self._serving.close_idle()


class Serving:
    """Hands each image the version that it shall see: `with serving.lease(image_id) as model: ...`.

    Lives in the event loop alone, so nothing here needs a lock. `give_up` stops this worker, `on_broken` hears of a
    canary that failed in service.
    """

    def __init__(
        self, give_up: Callable[[], None], on_broken: Callable[[Served, ModelBroken], None] = lambda *_: None
    ) -> None:
        self._give_up = give_up
        self.on_broken = on_broken
        self.current: Served | None = None
        self.canary: Served | None = None
        self._choose: Choose = str
        self._closing: set[asyncio.Task[None]] = set()
        self._loaded: list[Served] = []
        self.broken: ModelBroken | None = None
        """Why this worker can't go on: the version that all others would fall back to failed."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.current = self.canary = None
        for served in [*self._loaded]:
            self._close(served)  # images in hand were settled or given back before
        await asyncio.gather(*self._closing)

    def loaded(self, manifest_sha256: str) -> Served | None:
        """The version with this manifest if it is open: in service, or kept for its last images."""
        return next((served for served in self._loaded if served.manifest_sha256 == manifest_sha256), None)

    def switch(self, current: Served, canary: Served | None = None, choose: Choose = str) -> None:
        """From now on images go to `current`, those that `choose` gives to it to `canary`.

        Versions that serve no more are closed after their last image.
        """
        self.current, self.canary, self._choose = current, canary, choose
        self._loaded += [served for served in (current, canary) if served is not None and served not in self._loaded]
        self.close_idle()

    def lease(self, image_id: str, wanted: str = "") -> Lease:
        """The version for this image; it stays open until the block ends, whatever is promoted meanwhile.

        With `wanted` (`name@version`) that version and no other. The block's ModelBroken and PictureFailed are judged:
        a canary's are all ModelBroken, since the other version may well manage. Raises NotServed, ModelBroken.
        """
        return Lease(self, self._wanted(wanted) if wanted else self._for(image_id))

    def is_alive(self) -> bool:
        """Whether the threads of what is in service still run."""
        return all(served.thread.is_alive() for served in (self.current, self.canary) if served is not None)

    def _wanted(self, ref: str) -> Served:
        for served in (self.current, self.canary):
            if served is not None and served.ref == ref:
                return served
        raise NotServed(f"{ref} does not serve here")

    def _for(self, image_id: str) -> Served:
        if self.current is None:
            raise ModelBroken("no model serves")
        if self.canary is not None and self._choose(image_id) == self.canary.ref:
            return self.canary
        return self.current

    def judge(self, served: Served, error: ModelBroken | PictureFailed) -> None:
        """What a failure in the block of a lease means for who serves. Raises ModelBroken where a picture failed that
        the other version may manage: one such picture takes a canary out."""
        if isinstance(error, ModelBroken):
            self._broke(served, error)
        elif served is not self.current:
            broken = ModelBroken(str(error))
            self._broke(served, broken)
            raise broken from error

    def _broke(self, served: Served, error: ModelBroken) -> None:
        """A canary is taken out of service, its images come back to the other; without that one this worker ends."""
        if served is self.current:
            self.broken = self.broken or error
            self._give_up()
        elif served is self.canary:
            _log.error("the canary %s failed and is taken out: %s", served.ref, error)
            self.canary = None
            self.on_broken(served, error)

    def close_idle(self) -> None:
        """Close what serves no more and has no image left."""
        for served in [*self._loaded]:
            if served.images == 0 and served is not self.current and served is not self.canary:
                self._close(served)

    def _close(self, served: Served) -> None:
        self._loaded.remove(served)
        # A context of its own: its log line is not about the image that happened to be the last.
        task = asyncio.create_task(self._close_in_peace(served), context=contextvars.Context())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_in_peace(self, served: Served) -> None:
        await served.thread.close()
        _log.info("model %s is closed", served.ref)

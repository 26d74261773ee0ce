"""The bounded stages that images pass through: a place in the next one first, then the present one is left.

That is the back-pressure: while the model's places are taken a decoded picture keeps its place among the decoders, so
the next one is not decoded, not downloaded, and in the end not received.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from fusebus.inferencer.urgency import Urgency


class Closed(Exception):
    """The process stops: what was not begun is given back."""


class Stage:
    """At most `places` images at a time; the most urgent of those that wait comes next. For one event loop."""

    def __init__(self, name: str, places: int) -> None:
        self.name = name
        self.places = places
        self.inside = 0
        """Places that are taken."""
        self._closed = False
        self._waiting: list[tuple[Urgency, asyncio.Future[None]]] = []

    @property
    def waiting(self) -> int:
        """Images in front of it."""
        return sum(not turn.done() for _, turn in self._waiting)

    def take(self) -> bool:
        """A place at once, if there is one. Raises Closed."""
        if self._closed:
            raise Closed
        if self.inside >= self.places:
            return False
        self.inside += 1
        return True

    async def enter(self, urgency: Urgency) -> None:
        """Returns with a place, which `leave` gives to the next one. Raises Closed."""
        if self.take():
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # the place came at the same moment
            raise

    def leave(self) -> None:
        """Give the place up."""
        while self._waiting:
            _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)  # takes over the place
                return
        self.inside -= 1

    def close(self) -> None:
        """From now on nobody gets in, those who wait neither; those inside go on."""
        self._closed = True
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(Closed())
        self._waiting.clear()


class Lap(NamedTuple):
    """One image in one stage; seconds of time.perf_counter."""

    stage: str
    asked: float
    """Wanted in."""
    began: float
    ended: float


class Passage:
    """One image's way through the stages."""

    def __init__(self, urgency: Urgency) -> None:
        self.urgency = urgency
        self.laps: list[Lap] = []
        self._at: Stage | None = None
        self._asked = self._began = 0.0

    async def into(self, stage: Stage) -> None:
        """Go on to the next stage as soon as it has a place. Raises Closed."""
        asked = time.perf_counter()
        if self._at is not None:
            self.laps.append(Lap(self._at.name, self._asked, self._began, asked))
        if not stage.take():
            await stage.enter(self.urgency)
        before, self._at = self._at, stage
        if before is not None:
            before.leave()
        self._asked, self._began = asked, time.perf_counter()

    def end(self) -> None:
        """Leave the last stage; harmless where there is none."""
        stage, self._at = self._at, None
        if stage is not None:
            self.laps.append(Lap(stage.name, self._asked, self._began, time.perf_counter()))
            stage.leave()

    @property
    def seconds(self) -> dict[str, float]:
        """What each stage took, without the wait for a place in it."""
        return {lap.stage: lap.ended - lap.began for lap in self.laps}


@dataclass(frozen=True, kw_only=True)
class Places:
    """How many images each stage holds at a time."""

    downloads: int = 8
    decoding: int = 2
    """Being decoded, or decoded and without a place at the model."""
    model: int = 8
    """In the running call and in the next one."""
    annotating: int = 2
    uploads: int = 8


class Stages:
    """All of them, in order."""

    def __init__(self, places: Places | None = None) -> None:
        chosen = places or Places()
        self.download = Stage("download", chosen.downloads)
        self.decode = Stage("decode", chosen.decoding)
        self.model = Stage("model", chosen.model)
        self.annotate = Stage("annotate", chosen.annotating)
        self.upload = Stage("upload", chosen.uploads)

    def __iter__(self) -> Iterator[Stage]:
        return iter((self.download, self.decode, self.model, self.annotate, self.upload))

    @contextmanager
    def passage(self, urgency: Urgency) -> Iterator[Passage]:
        """One image's way: whatever ends it gives its place to the next one."""
        passage = Passage(urgency)
        try:
            yield passage
        finally:
            passage.end()

    @property
    def model_is_hungry(self) -> bool:
        """Whether it will soon have nothing to do: then decoding comes before drawing."""
        return 2 * self.model.inside < self.model.places

    def close(self) -> None:
        """Begin no image any more; those that are begun go on."""
        self.download.close()

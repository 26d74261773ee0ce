"""The bounded stages that images pass through: a place in the next one first, then the present one is left.

That is the back-pressure: while the model's places are taken a decoded picture keeps its place among the decoders, so
the next one is not decoded, not downloaded, and in the end not received.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from fusebus.inferencer.urgency import Urgency


class Closed(Exception):
    """The process stops: what was not begun is given back."""


class Turn(NamedTuple):
    """One image in front of a stage."""

    urgency: Urgency
    place: asyncio.Future[None]
    until: float
    """When its patience ends, by the loop's clock."""


class Stage:
    """At most `places` images at a time; the most urgent of those that wait comes next. For one event loop."""

    def __init__(self, name: str, places: int) -> None:
        self.name = name
        self.places = places
        self.inside = 0
        """Places that are taken."""
        self._closed = False
        self._waiting: list[Turn] = []
        self._timer: asyncio.Handle | None = None
        """One for all that wait: a timer for each image would cost a tenth of its whole way through the stages."""
        self._wakes_at = math.inf
        """When it ends. Not the handle's to tell: uvloop's has no time where it is less than a millisecond away."""

    @property
    def waiting(self) -> int:
        """Images in front of it."""
        return sum(not turn.place.done() for turn in self._waiting)

    def take(self) -> bool:
        """A place at once, if there is one. Raises Closed."""
        if self._closed:
            raise Closed
        if self.inside >= self.places:
            return False
        self.inside += 1
        return True

    async def enter(self, urgency: Urgency, patience: float = math.inf) -> None:
        """Returns with a place, which `leave` gives to the next one.

        Raises Closed; TimeoutError after `patience` seconds without a place.
        """
        if self.take():
            return
        loop = asyncio.get_running_loop()
        turn = Turn(urgency, loop.create_future(), loop.time() + patience)
        heapq.heappush(self._waiting, turn)
        self._wake_at(turn.until, loop)
        try:
            await turn.place
        except asyncio.CancelledError:
            if turn.place.done() and not turn.place.cancelled() and turn.place.exception() is None:
                self.leave()  # the place came at the same moment
            raise

    def leave(self) -> None:
        """Give the place up."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)
            if not turn.place.done():
                turn.place.set_result(None)  # takes over the place
                return
        self.inside -= 1

    def close(self) -> None:
        """From now on nobody gets in, those who wait neither; those inside go on."""
        self._closed = True
        for turn in self._waiting:
            if not turn.place.done():
                turn.place.set_exception(Closed())
        self._waiting.clear()

    def _wake_at(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        if when >= self._wakes_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._wakes_at = loop.call_at(when, self._end_patience, loop), when

    def _end_patience(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._wakes_at, now = None, math.inf, loop.time()
        for turn in self._waiting:
            if turn.until <= now and not turn.place.done():
                turn.place.set_exception(TimeoutError(f"no place in the stage {self.name}"))
        self._waiting = [turn for turn in self._waiting if not turn.place.done()]
        heapq.heapify(self._waiting)
        self._wake_at(min((turn.until for turn in self._waiting), default=math.inf), loop)


class Lap(NamedTuple):
    """One image in one stage; seconds of time.perf_counter."""

    stage: str
    asked: float
    """Wanted in."""
    began: float
    ended: float


class Passage:
    """One image's way through the stages: whatever ends the block gives its place to the next one."""

    def __init__(self, urgency: Urgency) -> None:
        self.urgency = urgency
        self.laps: list[Lap] = []
        self._at: Stage | None = None
        self._asked = self._began = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    async def into(self, stage: Stage, patience: float = math.inf) -> None:
        """Go on to the next stage as soon as it has a place. Raises Closed; TimeoutError after `patience` seconds."""
        asked = time.perf_counter()
        if self._at is not None:
            self.laps.append(Lap(self._at.name, self._asked, self._began, asked))
        if not stage.take():
            await stage.enter(self.urgency, patience)
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

    @property
    def model_is_hungry(self) -> bool:
        """Whether it will soon have nothing to do: then decoding comes before drawing."""
        return 2 * self.model.inside < self.model.places

    def close(self) -> None:
        """Begin no image any more; those that are begun go on."""
        self.download.close()

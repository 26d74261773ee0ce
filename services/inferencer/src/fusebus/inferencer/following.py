"""Follows the registry's live document: loads what it names, switches to it, refuses what is not fit, and says so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from fusebus.blobs import StorageError
from fusebus.bus import BusError
from fusebus.contracts.messages import Message, ModelChanged, ModelRefused
from fusebus.contracts.outcomes import Outgoing
from fusebus.inferencer.guard import ModelRefusal
from fusebus.inferencer.model import ModelBroken
from fusebus.inferencer.serving import Served, Serving
from fusebus.models.live import Live, LiveModel, RegistryError
from fusebus.models.routing import choose

_log = logging.getLogger(__name__)

Load = Callable[[LiveModel], Awaitable[Served]]
Publish = Callable[[Sequence[Outgoing]], Awaitable[None]]


class NoModel(Exception):
    """The registry names no version that this worker could serve."""


class Registry(Protocol):
    """What we need of fusebus.models.registry.Registry."""

    async def live(self) -> Live | None:
        """See Registry.live."""
        ...


@dataclass(kw_only=True)
class Follower:
    """Keeps `serving` as the live document says: `await follower.start()`, then `follow()` as a task."""

    registry: Registry
    serving: Serving
    load: Load
    open_own: Callable[[], Awaitable[Served]]
    """The model that the settings name."""
    publish: Publish
    worker: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _seen: str = ""  # ETag of the document that is in force
    # By the manifest's digest. What was refused can't change, so that it is not tried again.
    _refused: dict[str, ModelRefusal] = field(default_factory=dict)
    _unreported: list[tuple[str, ModelRefusal]] = field(default_factory=list)
    _unsaid: list[Message] = field(default_factory=list)  # what the bus has not taken yet

    def __post_init__(self) -> None:
        self.serving.on_broken = self._canary_broke

    async def start(self) -> None:
        """Load what is live, or the version before it where that one is refused.

        Raises NoModel, StorageError, RegistryError, OSError; for the settings' model ModelError, BackendError.
        """
        live = await self.registry.live()
        if live is None or live.current is None:
            _log.info("nothing is promoted yet, the model of the settings serves")
            self.serving.switch(await self.open_own())
            return
        first = await self._first(live, live.current)
        self.serving.switch(first)
        if first.manifest_sha256 != live.current.manifest_sha256:
            _log.error("%s can't serve, %s from before it does in its place", live.current.ref, first.ref)
        _log.info("model %s serves", first.ref)
        await self._take_canary(live)
        self._seen = live.etag
        await self._say()

    async def follow(self, seconds: float) -> None:
        """Look at the live document every so many seconds, for ever; whatever fails is tried again at the next look."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.look()
            except (StorageError, RegistryError, OSError) as error:
                _log.warning("the registry can't be followed now: %s", error)
            except Exception:
                _log.exception("the registry can't be followed now")

    async def look(self) -> None:
        """Do what the live document says, if it changed. Raises StorageError, RegistryError, OSError."""
        await self._say()
        live = await self.registry.live()
        if live is None or live.current is None or live.etag == self._seen:
            return
        await self._obey(live, live.current)
        self._seen = live.etag
        await self._say()

    async def _first(self, live: Live, current: LiveModel) -> Served:
        """The live version, or the latest before it that is fit. Before the first promotion, the settings' served."""
        for model in (current, *live.previous):
            if (served := await self._fit(model)) is not None:
                return served
        if not live.previous:
            return await self.open_own()
        self._report_refusals(serving="")
        await self._say()
        reasons = "; ".join(str(error) for error in self._refused.values())
        raise NoModel(f"neither {current.ref} nor any version before it can serve here: {reasons}")

    async def _obey(self, live: Live, current: LiveModel) -> None:
        serving, wanted = self.serving, {model.manifest_sha256 for model in (live.current, live.canary) if model}
        if serving.canary is not None and serving.canary.manifest_sha256 not in wanted:
            serving.switch(_in_service(serving))  # makes room before another one is loaded
        loaded, before = await self._fit(current), _in_service(serving)
        if loaded is not None:
            canary = serving.canary if serving.canary is not loaded else None
            serving.switch(loaded, canary, partial(choose, live=live))
            if loaded is not before:
                _log.info("model %s takes the place of %s", loaded.ref, before.ref)
                self._unsaid.append(_changed(before.ref, loaded.ref, live))
        await self._take_canary(live)

    async def _take_canary(self, live: Live) -> None:
        canary = await self._fit(live.canary) if live.canary is not None else None
        current = _in_service(self.serving)
        if canary is not None and canary is not current:
            self.serving.switch(current, canary, partial(choose, live=live))
            _log.info("model %s gets its share of the images", canary.ref)
        else:
            self.serving.switch(current)

    async def _fit(self, model: LiveModel) -> Served | None:
        """That version, open; None where it is refused now or was before."""
        if model.manifest_sha256 in self._refused:
            return None
        if (loaded := self.serving.loaded(model.manifest_sha256)) is not None:
            return loaded
        _log.info("loading model %s", model.ref)
        try:
            return await self.load(model)
        except ModelRefusal as error:
            self._refuse(model.ref, model.manifest_sha256, error)
            return None

    def _refuse(self, ref: str, manifest_sha256: str, error: ModelRefusal) -> None:
        _log.error("model %s is refused, %s", ref, error)
        self._refused[manifest_sha256] = error
        self._unreported.append((ref, error))

    def _canary_broke(self, canary: Served, error: ModelBroken) -> None:
        self._refuse(canary.ref, canary.manifest_sha256, ModelRefusal("broken", str(error)))

    def _report_refusals(self, serving: str) -> None:
        self._unsaid += [
            ModelRefused(
                model=ref,
                serving=serving,
                reason=error.reason,
                description=error.description,
                worker=self.worker,
                refused_at=self.now(),
            )
            for ref, error in self._unreported
        ]
        self._unreported.clear()

    async def _say(self) -> None:
        """Publish what happened; a bus that does not take it hears it at the next look."""
        if self.serving.current is not None:
            self._report_refusals(self.serving.current.ref)
        if not self._unsaid:
            return
        try:
            await self.publish([Outgoing(message=message) for message in self._unsaid])
        except BusError as error:
            _log.warning("the bus did not take it, it is said again later: %s", error)
        else:
            self._unsaid.clear()


def _changed(before: str, after: str, live: Live) -> ModelChanged:
    """The same from every worker and from who promoted it, so that the topic keeps one of them."""
    switches = (change for change in reversed(live.history) if change.action in ("promote", "rollback"))
    change = next((change for change in switches if change.after == after), None)
    return ModelChanged(
        previous=before,
        current=after,
        changed_by=change.who if change else "",
        changed_at=change.when if change else datetime.fromtimestamp(0, UTC),
    )


def _in_service(serving: Serving) -> Served:
    """Once started, one version always serves."""
    assert serving.current is not None
    return serving.current

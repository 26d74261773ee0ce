"""The live document: which version serves, what share its canary has, how it came to this. Decisions only, no I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.models.manifest import Digest, Name

FORMAT_VERSION = 1
MAX_HISTORY = 200
"""Changes that the document keeps; the oldest go first. 200 are about 60 KB, with the longest texts 600 KB."""
MAX_WHO = 200  # characters
MAX_WHY = 500  # characters
MAX_PREVIOUS = 10
"""How many rollbacks in a row are possible."""


class RegistryError(Exception):
    """The registry does not do what was asked; the text says why and what will work."""


class AlreadySo(RegistryError):
    """Nothing had to be changed."""


class LiveModel(msgspec.Struct, frozen=True, kw_only=True):
    """A version in service, pinned by its manifest's digest."""

    name: Name
    version: Name
    manifest_sha256: Digest
    """Of manifest.json, which in turn has the digest of every file."""

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


class Canary(LiveModel, frozen=True, kw_only=True):
    """A version that sees a share of the images."""

    percent: Annotated[float, Meta(gt=0, lt=100)]


class Change(msgspec.Struct, frozen=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """One entry of the history."""

    id: str
    """Of this attempt: a writer whose answer was lost recognises its own success by it."""
    who: str
    when: datetime
    why: str
    action: str
    """`promote`, `canary`, `rollback`, `stop canary` or `delete`."""
    before: str
    """What served, as `name@version`; empty where nothing did, and for `delete`."""
    after: str
    """What serves, the canary's version, or for `delete` the version that is gone."""
    percent: float | None = None
    """The canary's share of images."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document."""

    format_version: int = FORMAT_VERSION
    current: LiveModel | None = None
    """None until the first promotion: workers serve the model that their settings name."""
    canary: Canary | None = None
    previous: tuple[LiveModel, ...] = ()
    """What rollback goes back to: the last one first."""
    history: tuple[Change, ...] = ()
    """Oldest first."""
    etag: str = ""
    """Of the blob that it was read from; never part of it."""


def encode_live(live: Live) -> bytes:
    """The document's bytes, laid out for people."""
    fields = msgspec.to_builtins(live)
    del fields["etag"]
    return msgspec.json.format(msgspec.json.encode(fields), indent=2) + b"\n"


def decode_live(data: bytes, etag: str) -> Live:
    """The document from its bytes. Raises RegistryError where they are none of this release."""
    try:
        live = msgspec.json.decode(data, type=Live)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"the registry's live document can't be read: {error}") from error
    if live.format_version != FORMAT_VERSION:
        raise RegistryError(
            f"the registry's live document has format_version {live.format_version}, this release reads"
            f" {FORMAT_VERSION}: use the release that wrote it"
        )
    return msgspec.structs.replace(live, etag=etag)


def require_text(who: str, why: str) -> None:
    """Raises RegistryError for what would not fit into the history, or not be read there."""
    for label, text, most in (("who", who, MAX_WHO), ("why", why, MAX_WHY)):
        if len(text) > most or not text.isprintable():
            raise RegistryError(f"--{label} must be one line of at most {most} characters")


def promoted(live: Live, model: LiveModel, percent: float | None, change: Change) -> Live:
    """The document after `model` went into service, wholly or for `percent` of the images.

    `change` brings who, when and why; the rest of it is filled in here. Raises RegistryError, AlreadySo.
    """
    before = live.current.ref if live.current else ""
    if percent is not None:
        return _with_canary(live, model, percent, change)
    if live.current is not None and live.current.ref == model.ref:
        if live.canary is None:
            raise AlreadySo(f"{model.ref} is live already")
        return _recorded(live, change, "stop canary", live.canary.ref, model.ref, canary=None)
    previous = (live.current, *live.previous) if live.current else live.previous
    # A version that comes back is no target behind itself.
    previous = tuple(found for found in previous if found.ref != model.ref)[:MAX_PREVIOUS]
    return _recorded(live, change, "promote", before, model.ref, current=model, canary=None, previous=previous)


def rolled_back(live: Live, change: Change) -> Live:
    """The document one step back: a canary ends; without one the version before comes back. Raises RegistryError."""
    if live.canary is not None:
        after = live.current.ref if live.current else ""
        return _recorded(live, change, "stop canary", live.canary.ref, after, canary=None)
    if live.current is None or not live.previous:
        raise RegistryError("there is nothing to go back to: promote the version that you want (fusebus model list)")
    target, *rest = live.previous
    return _recorded(live, change, "rollback", live.current.ref, target.ref, current=target, previous=tuple(rest))


def deleted(live: Live, ref: str, change: Change) -> Live:
    """The document that records the end of `ref`. Raises RegistryError while it is in use."""
    if why := use_of(live, ref):
        raise RegistryError(f"{ref} is {why}; promote another version first (fusebus model list)")
    previous = tuple(found for found in live.previous if found.ref != ref)
    return _recorded(live, change, "delete", "", ref, previous=previous)


def use_of(live: Live | None, ref: str) -> str:
    """What `ref` is needed for, in words; empty where it is not."""
    if live is None:
        return ""
    if live.current is not None and live.current.ref == ref:
        return "live"
    if live.canary is not None and live.canary.ref == ref:
        return "the canary"
    return "what rollback goes back to" if live.previous and live.previous[0].ref == ref else ""


def _with_canary(live: Live, model: LiveModel, percent: float, change: Change) -> Live:
    if live.current is None:
        raise RegistryError(f"nothing is live that {model.ref} could be compared with; promote it without --canary")
    if live.current.ref == model.ref:
        raise RegistryError(f"{model.ref} is live already, it can't be its own canary")
    canary = Canary(name=model.name, version=model.version, manifest_sha256=model.manifest_sha256, percent=percent)
    if live.canary == canary:
        raise AlreadySo(f"{model.ref} is the canary with {percent:g} % already")
    change = msgspec.structs.replace(change, percent=percent)
    return _recorded(live, change, "canary", live.current.ref, model.ref, canary=canary)


def _recorded(live: Live, change: Change, action: str, before: str, after: str, **fields: object) -> Live:
    entry = msgspec.structs.replace(change, action=action, before=before, after=after)
    return msgspec.structs.replace(live, history=(*live.history, entry)[-MAX_HISTORY:], etag="", **fields)

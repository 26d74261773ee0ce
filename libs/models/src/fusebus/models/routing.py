"""Decides which version an image goes to."""

from __future__ import annotations

import hashlib

from fusebus.models.live import Live


def choose(image_id: str, live: Live) -> str:
    """`name@version` for this image: the canary for its share of images, the current version for all others.

    Stable: an image goes to the same version in every worker and on every delivery, and a share that is raised keeps
    the images it had. Each canary draws its own sample. Empty where nothing is live.
    """
    canary = live.canary
    if canary is not None:
        drawn = hashlib.sha256(f"{canary.ref}\n{image_id}".encode()).digest()
        if int.from_bytes(drawn[:8], "big") * 100 < canary.percent * 2**64:
            return canary.ref
    return live.current.ref if live.current else ""

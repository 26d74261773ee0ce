"""Sends messages to the topics that carry them."""

from __future__ import annotations

from collections.abc import Sequence

from fusebus.contracts.envelope import Envelope
from fusebus.contracts.outcomes import Outgoing


class Publisher:
    """One long-lived sender for each topic; safe to share between coroutines."""

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send all; raises PublishFailed. Publishing the same again is safe: duplicates are detected by message id."""
        raise NotImplementedError

    async def publish_envelopes(self, envelopes: Sequence[Envelope]) -> None:
        """Send prepared envelopes, for a replay or a delayed retry."""
        raise NotImplementedError

"""The service's tiers, as far as they differ for clients of one namespace."""

from __future__ import annotations

from enum import Enum

_KILOBYTE = 1024


class Tier(Enum):
    """The values are the names that the administration API uses."""

    BASIC = "Basic"
    STANDARD = "Standard"
    PREMIUM = "Premium"

    @property
    def max_message_bytes(self) -> int:
        """Of one message or batch; in the premium tier an entity may allow more."""
        return (1024 if self is Tier.PREMIUM else 256) * _KILOBYTE

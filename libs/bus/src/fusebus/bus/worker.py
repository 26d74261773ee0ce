"""The consumer loop: the one place that decodes, renews, publishes, then settles."""

from __future__ import annotations


class Consumer:
    """Receives from one subscription until it is stopped."""

    def is_alive(self) -> bool:
        """Whether the loop still turns."""
        raise NotImplementedError

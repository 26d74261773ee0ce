"""How many bytes entities hold, counted as they come and go."""


class Meter:
    """`bytes` of messages in a mailbox and below: what a part holds counts for the whole too."""

    __slots__ = ("bytes", "parent")

    def __init__(self, parent: "Meter | None" = None) -> None:
        self.bytes = 0
        self.parent = parent

    def add(self, size: int) -> None:
        """`size` in bytes, negative when something goes."""
        meter: Meter | None = self
        while meter is not None:
            meter.bytes += size
            meter = meter.parent

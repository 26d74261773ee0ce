"""How many bytes an entity holds, counted as they come and go."""


class Meter:
    """`bytes` of messages in an entity with its sub-queues; what a subscription holds counts for its topic too."""

    __slots__ = ("bytes", "parent")

    def __init__(self, parent: "Meter | None" = None) -> None:
        self.bytes = 0
        self.parent = parent

    def add(self, size: int) -> None:
        """`size` in bytes, negative when something goes."""
        self.bytes += size
        if self.parent is not None:
            self.parent.bytes += size

"""What is wrong with the market and with machines: read by the fleet when it allocates and boots."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ResizeFault:
    """The next resizes end with this error and without a node; of any pool where `pool_id` is None."""

    pool_id: str | None
    code: str
    message: str
    left: int


@dataclass
class FleetFaults:
    market: dict[tuple[str, bool], int] = field(default_factory=dict)  # by size (lower case) and `dedicated`: nodes
    missing_sizes: set[str] = field(default_factory=set)  # lower case
    resizes: list[ResizeFault] = field(default_factory=list)
    unusable_boots: dict[str, int] = field(default_factory=dict)  # by pool: that many machines come up broken
    start_tasks: dict[str, tuple[int, int]] = field(default_factory=dict)  # by pool: how many fail, exit code
    boot_seconds: float | None = None  # instead of the account's
    boot_spread: float | None = None

    def resize_fault(self, pool_id: str) -> tuple[str, str] | None:
        """The error of this resize, if it is to have one; counts it."""
        for fault in self.resizes:
            if fault.pool_id in (None, pool_id):
                fault.left -= 1
                self.resizes = [other for other in self.resizes if other.left > 0]
                return fault.code, fault.message
        return None

    def boots_unusable(self, pool_id: str) -> bool:
        """Whether the machine that is up now is broken; counts it."""
        left = self.unusable_boots.pop(pool_id, 0)
        if left > 1:
            self.unusable_boots[pool_id] = left - 1
        return left > 0

    def start_task_exit(self, pool_id: str) -> int | None:
        """The exit code with which this run of a start task is to fail; counts it."""
        left, code = self.start_tasks.pop(pool_id, (0, 0))
        if left > 1:
            self.start_tasks[pool_id] = left - 1, code
        return code if left > 0 else None

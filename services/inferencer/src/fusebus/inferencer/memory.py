"""How a worker's threads share the memory that its pictures leave."""

from __future__ import annotations

import os

from fusebus.host import MallocOption, set_malloc


def share_freed_memory() -> None:
    """One heap for all threads: what one of them freed, each may use. To be called before threads are started.

    glibc gives each thread an arena of its own, which keeps what its largest pictures needed at a time. Who sets
    MALLOC_ARENA_MAX has so many.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        set_malloc(MallocOption.ARENA_MAX, 1)

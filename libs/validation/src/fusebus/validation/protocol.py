"""What a fork server and its user say to each other, over a socket that keeps messages apart."""

from __future__ import annotations

import msgspec

from fusebus.validation.guards import Guards

REQUEST_BYTES = 4_096
GRACE_SECONDS = 2.0
"""The kernel ends a child at its own wall time; whoever is still there so much later is killed."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One file to be judged; its descriptors travel beside: content, report, derivative."""

    derivative: bool


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended."""

    code: int
    """Exit code, or minus the signal."""
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The server's first word."""

    guards: Guards

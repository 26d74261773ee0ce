"""What every route needs: the state machine, the folder of files, the faults of requests, and its next step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fusebus.localbatch.request_faults import RequestFaults
from fusebus.localbatch.runner import ProcessRunner
from fusebus.localbatch.state import BatchState


@dataclass(frozen=True)
class Front:
    state: BatchState
    runner: ProcessRunner
    step: Callable[[], None]  # carries out what the state machine wants done
    request_faults: RequestFaults = field(default_factory=RequestFaults)
    location: str = "local"
    host: str = "127.0.0.1"  # by which clients may call the server, beside the names of loopback

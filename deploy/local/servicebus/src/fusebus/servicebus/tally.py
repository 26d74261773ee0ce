"""Log lines about events that may come in thousands: the first at once, then a sum once a second."""

from __future__ import annotations

import asyncio
import logging

INTERVAL_SECONDS = 1.0


class Tally:
    """Counts one kind of event; must be used on the event loop."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self.count = 0
        self._logger = logger
        self._what = what
        self._logged = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self) -> None:
        """One more."""
        self.count += 1
        if self._timer is None:
            self._log()

    def _log(self) -> None:
        self._timer = None
        if self.count > self._logged:
            self._logger.warning("%s: %d (%d in all)", self._what, self.count - self._logged, self.count)
            self._logged = self.count
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_SECONDS, self._log)

    def stop(self) -> None:
        """Nothing more is logged by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

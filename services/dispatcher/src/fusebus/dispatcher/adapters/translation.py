"""Turns what Batch answers into our few errors, and keeps away from a plane that asked for a pause."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping

from azure.core.exceptions import AzureError, HttpResponseError

from fusebus.dispatcher.errors import FleetError, PoolBusy, PoolChanged, Refused, Throttled

ASSUMED_RETRY_AFTER_SECONDS = 15.0  # where a 429 does not say
LONGEST_RETRY_AFTER_SECONDS = 300.0  # whatever a server says: prices, pins and deadlines go on changing meanwhile
LASTING_CONFLICTS = frozenset(
    {"JobCompleted", "JobDisabled", "JobBeingTerminated", "JobTerminating", "JobBeingDeleted", "PoolBeingDeleted"}
)
"""Codes of a 409 that no later look sees pass by itself."""
LONGEST_TEXT = 500  # characters of a server's message


class Plane:
    """One of Batch's two addresses: its requests have a limit of time, and pauses that it asked for are kept."""

    def __init__(self, name: str, limit_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._limit = limit_seconds
        self._clock = clock
        self._closed_until = 0.0

    @contextlib.asynccontextmanager
    async def requests(self) -> AsyncIterator[None]:
        """Around requests; raises FleetError and its kinds, nothing of azure's."""
        left = self._closed_until - self._clock()
        if left > 0:
            raise Throttled(f"{self._name} asked to be left alone for {left:.0f} s more", left)
        try:
            async with asyncio.timeout(self._limit):
                yield
        except HttpResponseError as error:
            raise self._of_answer(error) from error
        except AzureError as error:
            raise FleetError(f"{self._name}: {error.message}"[:LONGEST_TEXT]) from error
        except TimeoutError as error:
            raise FleetError(f"{self._name} did not answer within {self._limit:g} s") from error

    def _of_answer(self, error: HttpResponseError) -> FleetError:
        code = code_of(error)
        text = f"{self._name}: {error.status_code} {code or error.reason}: {_sentence(error)}"[:LONGEST_TEXT]
        match error.status_code:
            case 412:
                return PoolChanged(text)
            case 409:
                return Refused(text) if code in LASTING_CONFLICTS else PoolBusy(text)
            case 429 | 503:
                pause = retry_after_seconds(headers_of(error))
                self._closed_until = self._clock() + pause
                return Throttled(text, pause)
            case None | 408 | 500 | 502 | 504:
                return FleetError(text)
            case _:
                return Refused(text)


def code_of(error: HttpResponseError) -> str:
    """Batch's own code such as `PoolBeingResized`; empty where the answer has none."""
    return str(headers_of(error).get("x-ms-error-code", "") or getattr(error.error, "code", "") or "")


def headers_of(error: HttpResponseError) -> Mapping[str, str]:
    """Of the answer; none where it broke off."""
    return getattr(error.response, "headers", None) or {}


def retry_after_seconds(headers: Mapping[str, str]) -> float:
    """How long a server wants to be left alone."""
    for name, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("Retry-After", 1.0)):
        value = headers.get(name)
        if value is not None:
            with contextlib.suppress(ValueError):  # a date: rare, and the assumption will do
                return min(max(float(value) * unit, 0.0), LONGEST_RETRY_AFTER_SECONDS)
    return ASSUMED_RETRY_AFTER_SECONDS


def _sentence(error: HttpResponseError) -> str:
    """The first line: the rest repeats it with ids and the body."""
    return str(getattr(error.error, "message", "") or error.message).partition("\n")[0]

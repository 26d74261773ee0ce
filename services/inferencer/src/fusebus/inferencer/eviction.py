"""Watches the node's Scheduled Events: a Spot node that is taken away says so some seconds before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

_log = logging.getLogger(__name__)

ENDS = frozenset({"Preempt", "Terminate", "Redeploy", "Reboot"})
"""Events that a process does not survive; a `Freeze` of some seconds it does."""
ANSWER_SECONDS = 5.0
"""For one request. The very first one on a node may take two minutes, it is then just asked again."""
_NAME = "instance/compute/name?api-version=2021-02-01&format=text"
_EVENTS = "scheduledevents?api-version=2020-07-01"


class Event(msgspec.Struct, frozen=True, rename="pascal"):
    """One notice; what else Azure says of it is not needed."""

    event_type: str
    resources: list[str] = []
    not_before: str = ""


class Notices(msgspec.Struct, frozen=True, rename="pascal"):
    """The document of the metadata service."""

    events: list[Event] = []


def ending(notices: Notices, name: str) -> Event | None:
    """The notice that ends the machine `name`; where that is not known (empty), any machine's."""
    return next(
        (event for event in notices.events if event.event_type in ENDS and (not name or name in event.resources)), None
    )


async def watch(url: str, seconds: float, stop: Callable[[], None]) -> None:
    """Look every so many seconds at the metadata service at `url` until it announces the end; then `stop` is called.

    A service that does not answer is asked again: no notice is no reason to stop.
    """
    import aiohttp  # only where it is watched

    name = ""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(headers={"Metadata": "true"}, timeout=timeout) as session:
        while True:
            try:
                name = name or await _name(session, url)
                notices = msgspec.json.decode(await _get(session, f"{url}/{_EVENTS}"), type=Notices)
            except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError) as error:
                _log.debug("no notices of eviction could be read: %r", error)
            else:
                if (event := ending(notices, name)) is not None:
                    _log.warning("this node ends: %s, not before %s", event.event_type, event.not_before or "now")
                    stop()
                    return
            await asyncio.sleep(seconds)


async def _name(session: Any, url: str) -> str:
    """The node's own name; empty where it can't be had: better to end for another's notice than to miss one's own."""
    import aiohttp

    try:
        return (await _get(session, f"{url}/{_NAME}")).decode().strip()
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
        _log.debug("the node's name could not be read: %r", error)
        return ""


async def _get(session: Any, url: str) -> bytes:
    async with session.get(url, raise_for_status=True) as answer:
        content: bytes = await answer.read()
        return content

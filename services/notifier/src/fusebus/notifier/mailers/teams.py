"""Cards into a channel of Microsoft Teams: one post to a workflow's webhook, whose address is a secret."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
import msgspec

from fusebus.host import Secret, environment_has_proxies
from fusebus.notifier.mailers import NotSent, OutcomeUnknown

LONGEST_PAUSE_SECONDS = 600.0  # of what Retry-After asks for
MOST_ANSWER_BYTES = 4_096  # read of an answer, for its error's code
PASSING_STATUS = frozenset({408, 425, 429})
PASSED_ON_STATUS = frozenset({502, 504})
"""Said by what stands before the workflow, which may have got the card all the same."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{1,80}\Z")


class TeamsWebhook:
    """One connection per card: cards are rare. Tells of its address no more than the setting that holds it."""

    def __init__(
        self, address: Secret, setting: str, timeout: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`timeout` in seconds, of a whole post. Raises ValueError for an address that is none, or not https."""
        _check(address.reveal(), setting)
        self._address = address
        self._setting = setting
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=timeout / 2)
        self._monotonic = monotonic
        self._pause_until = 0.0

    @property
    def setting(self) -> str:
        """The variable that holds the address."""
        return self._setting

    async def post(self, card: bytes) -> None:
        """Post the card; 2xx means taken, redirects are not followed.

        Raises NotSent before the request is out, while the webhook's Retry-After lasts and where it refuses;
        OutcomeUnknown where its answer never came, or came from somebody between.
        """
        if (left := self._pause_until - self._monotonic()) > 0:
            raise NotSent(
                f"{self._setting}: the webhook asked for a pause, of which {left:.0f} s are left", passing=True
            )
        try:
            await self._post(card)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError) as error:
            # Never the error's own text: it may quote the address.
            raise NotSent(f"{self._setting}: no connection ({type(error).__name__})", passing=True) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise OutcomeUnknown(f"{self._setting}: no answer ({type(error).__name__})") from None

    async def _post(self, card: bytes) -> None:
        async with (
            aiohttp.ClientSession(timeout=self._timeout, trust_env=environment_has_proxies()) as session,
            session.post(
                self._address.reveal(),
                data=card,
                headers={"Content-Type": "application/json; charset=utf-8"},
                allow_redirects=False,
            ) as answer,
        ):
            if answer.status // 100 == 2:
                return
            said = f"{self._setting}: answered {answer.status}"
            if (code := await _code(answer)) and code not in self._address.reveal():
                said += f" ({code})"
            self._pause(answer.headers.get("Retry-After", ""))
        if answer.status in PASSED_ON_STATUS:
            raise OutcomeUnknown(said)
        raise NotSent(said, passing=answer.status in PASSING_STATUS or answer.status // 100 == 5)

    def _pause(self, asked: str) -> None:
        """Send nothing for as long as the answer asks for, within limits."""
        seconds = _seconds(asked)
        if seconds > 0:
            self._pause_until = self._monotonic() + min(seconds, LONGEST_PAUSE_SECONDS)


def _check(address: str, setting: str) -> None:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{setting} is not a web address") from None
    if not host or parts.username or re.search(r"[\s\x00-\x1f]", address):
        raise ValueError(f"{setting} is not a web address, or has a user's name in it")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise ValueError(f"{setting} must begin with https:// (http:// only to this machine)")


async def _code(answer: aiohttp.ClientResponse) -> str:
    """`WorkflowNotFound`: the error's code and nothing else of the answer, which may quote the address; or nothing."""
    try:
        body = await answer.content.read(MOST_ANSWER_BYTES)
        code = msgspec.json.decode(body)["error"]["code"]
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError, LookupError, TypeError):
        return ""
    return code if isinstance(code, str) and _CODE.match(code) else ""


def _seconds(asked: str) -> float:
    """Retry-After in seconds from now: a number, or a date; 0 for anything else."""
    if asked.strip().isdecimal():
        return float(asked[:10])
    try:
        at = parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()

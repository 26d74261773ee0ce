"""Reads the link that a supplier was given, and says in words what is wrong with it before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote, urlsplit

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
ASK = "ask for a new one (fusebus supplier grant)"


class LinkUnfit(Exception):
    """The link can't or must not be used; the text says why and what to do, and never holds the secret."""


class LinkRefused(Exception):
    """Storage refused the link itself: no file will ever go through with it."""


@dataclass(frozen=True)
class Link:
    """A container's address with a token that can create blobs there."""

    scheme: str
    host: str
    port: int | None
    path: str
    """Of the container, as in the link, without a slash at its end."""
    token: str = field(repr=False)
    may_create_for_sure: bool = False
    """The token itself says so. One on a stored access policy says nothing; one that an identity signed (skoid) allows
    no more than that identity may do."""

    @property
    def container(self) -> str:
        """Where it leads, without the secret."""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{self.host}{port}{self.path}"

    def target(self, name: str) -> str:
        """What a request for the blob called `name` asks for."""
        return f"{self.path}/{quote(name, safe='/~')}?{self.token}"


def read_link(text: str, now: datetime) -> Link:
    """Raises LinkUnfit for what is no container's create-only link, is over, or would travel unprotected."""
    text = text.strip().strip("'\"").strip()
    if not all("!" <= letter <= "~" for letter in text):
        raise LinkUnfit("there is a space, a line's end or a letter in the link that no link has: copy all of it anew")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("https", "http"):
        raise LinkUnfit("this is no link: it begins with https:// and ends with sig=…; copy all of it, in quotes")
    if parts.scheme == "http" and host not in LOCAL_HOSTS:
        raise LinkUnfit(f"the link is http, which anybody on the way can read: use https, or {ASK}")
    token = parse_qs(parts.query)
    if "sig" not in token:
        raise LinkUnfit("the link has no signature (sig=…): it was cut off; copy all of it, in quotes because of the &")
    path = parts.path.rstrip("/")
    if not path.strip("/"):
        raise LinkUnfit(f"the link names no container: {ASK}")
    _refuse_wide(token)
    _refuse_untimely(token, now)
    return Link(parts.scheme, host, port, path, parts.query, may_create_for_sure="sp" in token and "skoid" not in token)


def _refuse_wide(token: dict[str, list[str]]) -> None:
    if "ss" in token or "srt" in token:
        raise LinkUnfit(
            f"the link opens the whole account, far more than uploading: don't use it, tell its maker, {ASK}"
        )
    if token.get("sr", ["c"]) != ["c"]:
        raise LinkUnfit(f"the link is not for a whole container: {ASK}")
    rights = token.get("sp", ["c"])[0]
    if rights != "c":
        more = "can't create files" if "c" not in rights else f"allows more than to create files (sp={rights[:20]})"
        raise LinkUnfit(f"the link {more}: don't use it, {ASK}")


def _refuse_untimely(token: dict[str, list[str]], now: datetime) -> None:
    expiry, start = (_moment(token.get(name, [""])[0]) for name in ("se", "st"))
    if expiry is not None and expiry <= now:
        raise LinkUnfit(f"the link expired on {expiry:%Y-%m-%d %H:%M} UTC: {ASK}")
    if start is not None and start > now:
        raise LinkUnfit(f"the link holds only from {start:%Y-%m-%d %H:%M} UTC on; is this machine's clock right?")


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

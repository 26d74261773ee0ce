"""Shared access signatures: makes them, and says what is wrong with a given one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

PREFIX = "SharedAccessSignature "


class SasError(Exception):
    """The token is malformed, expired, or not signed with the key; `str()` says which."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A verified token, for `path` (lower case, no slashes around it) and all below it, until `expires_at` (Unix s)."""

    path: str
    expires_at: float

    def covers(self, path: str, now: float) -> bool:
        """Whether the claim allows the entity at `path` at the time `now` (Unix seconds)."""
        wanted = path.strip("/").lower()
        return now < self.expires_at and (self.path in ("", wanted) or wanted.startswith(self.path + "/"))


def entity_path(uri: str) -> str:
    """The entity path in a resource URI or a bare path; the authority and the scheme go."""
    return (urlsplit(uri).path if "://" in uri else uri).strip("/")


def signature(resource: str, expiry: str, key: str) -> str:
    """Base64 HMAC-SHA256 of the (still url-encoded) resource and the expiry."""
    digest = hmac.new(key.encode("utf-8"), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode("ascii")


def make_token(uri: str, key_name: str, key: str, expires_at: int) -> str:
    """A token for `uri` and what is below it, good until `expires_at` (Unix seconds)."""
    resource = quote(uri, safe="")
    signed = quote(signature(resource, str(expires_at), key), safe="")
    return f"{PREFIX}sr={resource}&sig={signed}&se={expires_at}&skn={quote(key_name, safe='')}"


def verify(token: str, key_name: str, key: str, now: float) -> Claim:
    """The claim of a token at the time `now` (Unix seconds); raises SasError."""
    if not token.startswith(PREFIX):
        raise SasError("not a shared access signature")
    raw = dict(part.partition("=")[::2] for part in token[len(PREFIX) :].split("&"))
    decoded = dict(parse_qsl(token[len(PREFIX) :], keep_blank_values=True))
    if not {"sr", "sig", "se"} <= raw.keys():
        raise SasError("sr, sig or se is missing")
    if decoded.get("skn", key_name) != key_name:
        raise SasError("unknown key name")
    expires_at = _expiry(raw["se"])
    if expires_at <= now:
        raise SasError("the token has expired")
    # parse_qsl turns a '+' of base64 into a space; unquote does not.
    if not _same(unquote(raw["sig"]), signature(raw["sr"], raw["se"], key)):
        raise SasError("the signature is wrong")
    return Claim(entity_path(unquote(raw["sr"])).lower(), expires_at)


def _expiry(text: str) -> float:
    try:
        return float(int(text))
    except ValueError as error:
        raise SasError("the expiry is not a number of seconds") from error


def _same(given: str, expected: str) -> bool:
    try:
        return hmac.compare_digest(base64.b64decode(given, validate=True), base64.b64decode(expected))
    except (binascii.Error, ValueError):
        return False

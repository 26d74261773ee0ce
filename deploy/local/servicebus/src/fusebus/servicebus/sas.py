"""Shared access signatures: makes them, and says what is wrong with a given one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from fusebus.servicebus.engine.rights import ALL_RIGHTS, AuthorizationRule, Right

PREFIX = "SharedAccessSignature "


class SasError(Exception):
    """The token is malformed, expired, or not signed with the key; `str()` says which."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A verified token: `rights` to `path` and all below it until `expires_at` (Unix seconds).

    The path is in lower case, without slashes around it; empty for the namespace.
    """

    path: str
    expires_at: float
    rights: frozenset[Right] = ALL_RIGHTS

    def covers(self, path: str, now: float) -> bool:
        """Whether the claim allows the entity at `path` at the time `now` (Unix seconds)."""
        wanted = path.strip("/").lower()
        return now < self.expires_at and is_below(wanted, self.path)

    def allows(self, path: str, right: Right, now: float) -> bool:
        """Whether the claim gives that right to the entity at `path` at the time `now` (Unix seconds)."""
        return right in self.rights and self.covers(path, now)


def is_below(path: str, parent: str) -> bool:
    """Whether `path` is `parent` or inside it; both in lower case, without slashes around them."""
    return parent in ("", path) or path.startswith(parent + "/")


def entity_path(uri: str) -> str:
    """The entity path in a resource URI or a bare path; the authority and the scheme go."""
    _, has_scheme, rest = uri.partition("://")
    if not has_scheme:
        return uri.strip("/")
    return re.split("[?#]", rest.partition("/")[2], maxsplit=1)[0].strip("/")


def signature(resource: str, expiry: str, key: str) -> str:
    """Base64 HMAC-SHA256 of the (still url-encoded) resource and the expiry."""
    digest = hmac.new(key.encode("utf-8"), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode("ascii")


def make_token(uri: str, key_name: str, key: str, expires_at: int) -> str:
    """A token for `uri` and what is below it, good until `expires_at` (Unix seconds)."""
    resource = quote(uri, safe="")
    signed = quote(signature(resource, str(expires_at), key), safe="")
    return f"{PREFIX}sr={resource}&sig={signed}&se={expires_at}&skn={quote(key_name, safe='')}"


Keys = Callable[[str | None, str], Iterable[AuthorizationRule]]
"""The rules of a name (None: the token says none) that hold for a path, given in lower case."""


def verify(token: str, keys: Keys, now: float) -> Claim:
    """The claim of a token at the time `now` (Unix seconds); raises SasError."""
    if not token.startswith(PREFIX):
        raise SasError("not a shared access signature")
    raw = dict(part.partition("=")[::2] for part in token[len(PREFIX) :].split("&"))
    if not {"sr", "sig", "se"} <= raw.keys():
        raise SasError("sr, sig or se is missing")
    path = _resource_path(unquote(raw["sr"]))
    name = unquote(raw["skn"]) if "skn" in raw else None
    rules = list(keys(name, path))
    if not rules:
        raise SasError("unknown key name")
    expires_at = _expiry(raw["se"])
    if expires_at <= now:
        raise SasError("the token has expired")
    for rule in rules:
        if _signed_with(raw, rule.primary_key) or _signed_with(raw, rule.secondary_key):
            return Claim(path, expires_at, rule.granted)
    raise SasError("the signature is wrong")


def _resource_path(resource: str) -> str:
    """In lower case. The JavaScript SDK also signs `host:port`, and addresses in which slashes of names are encoded.

    Both are clear: no name has a colon or a percent sign of its own.
    """
    if "://" not in resource and ":" in resource.partition("/")[0]:
        resource = f"sb://{resource}"
    return unquote(entity_path(resource)).strip("/").lower()


def _signed_with(raw: dict[str, str], key: str) -> bool:
    return bool(key) and _same(unquote(raw["sig"]), signature(raw["sr"], raw["se"], key))


def is_key(rule: AuthorizationRule, key: str) -> bool:
    """Whether `key` is one of the rule's."""
    given = key.encode("utf-8")
    return any(
        own and hmac.compare_digest(given, own.encode("utf-8")) for own in (rule.primary_key, rule.secondary_key)
    )


def _expiry(text: str) -> float:
    try:
        return float(int(text))
    except (ValueError, OverflowError) as error:
        raise SasError("the expiry is not a number of seconds") from error


def _same(given: str, expected: str) -> bool:
    try:
        return hmac.compare_digest(base64.b64decode(given, validate=True), base64.b64decode(expected))
    except (binascii.Error, ValueError):
        return False

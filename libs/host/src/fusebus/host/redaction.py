"""Takes secrets out of text: those that look like one, and those that this process was given as settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, unquote, urlsplit

LEAST_KNOWN_LENGTH = 6
"""Characters: a shorter secret is not looked for by its value, or every log line would lose pieces of its words."""

_SHAPES = re.compile(
    r"(?P<key>(?:\b|%3F|%26)sig(?:=|%3D)|\b(?:AccountKey|SharedAccessKey|password|pwd|api[-_]?key)="
    r"|SharedAccessSignature[ =]|\bBearer |\bBasic (?=[\w+/]{12})|\bSharedKey [^\s:]+:)[^\s;&\"',]+"
    r"|(?P<scheme>://)[^/\s:@\"']+:[^/\s@\"']+@",
    re.IGNORECASE,
)
_SECRET_KEYS = frozenset({"accountkey", "sharedaccesskey", "sharedaccesssignature", "password", "pwd"})

_known: set[str] = set()
_values = re.compile(r"(?!)")  # matches nothing


def redact(text: str) -> str:
    """The text without the values of signatures, keys and tokens, and without any secret that was noted."""
    return _values.sub("***", _SHAPES.sub(_masked, text))


def note_secret(secret: str) -> None:
    """From now on `redact` takes this out wherever it stands: as it is, and as it looks in a URL or in JSON.

    Of a connection string and of an address with a signature only what is secret in them: the rest tells where.
    """
    global _values
    found = {form for part in _secret_parts(secret) for form in _forms(part) if len(form) >= LEAST_KNOWN_LENGTH}
    if found <= _known:
        return
    _known.update(found)
    _values = re.compile("|".join(re.escape(one) for one in sorted(_known, key=len, reverse=True)))


def _masked(match: re.Match[str]) -> str:
    return match["scheme"] + "***@" if match["scheme"] else match["key"] + "***"


def _secret_parts(secret: str) -> list[str]:
    pairs = [part.partition("=") for part in secret.split(";") if "=" in part]
    found = [value for key, _, value in pairs if key.strip().lower() in _SECRET_KEYS]
    if "sig=" in secret:
        found += parse_qs(secret.partition("?")[2] or secret.rpartition("SharedAccessSignature=")[2]).get("sig", [])
    if "://" in secret:
        found += [part for part in (_password_of(secret),) if part]
    return found or [secret]


def _password_of(address: str) -> str:
    try:
        return urlsplit(address).password or ""
    except ValueError:
        return ""


def _forms(part: str) -> set[str]:
    """As it is, and as it looks in an address, in Python's repr and in JSON."""
    plain = {part, unquote(part)}
    in_address = {form(one) for one in plain for form in (quote, quote_plus, partial(quote, safe=""))}
    in_json = {json.dumps(one, ensure_ascii=ascii_only)[1:-1] for one in plain for ascii_only in (True, False)}
    return plain | in_address | in_json | {repr(one)[1:-1] for one in plain}


def redacted(value: Any) -> Any:
    """The same with every text in it redacted, in mappings and lists too."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redacted(key): redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(inner) for inner in value]
    return value

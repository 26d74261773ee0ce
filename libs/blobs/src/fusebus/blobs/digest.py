"""Whether bytes are those that a message speaks of."""

from __future__ import annotations

import hashlib


class DigestMismatch(Exception):
    """The bytes are not those that were accepted."""


def require_digest(data: bytes, sha256: str) -> None:
    """Raises DigestMismatch, which names both digests, unless `data` has this SHA-256 (hexadecimal)."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DigestMismatch(f"the blob has SHA-256 {found}, accepted was {sha256}")

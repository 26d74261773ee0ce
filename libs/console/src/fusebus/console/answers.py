"""How commands answer scripts: one JSON object in ASCII, whatever names are in it."""

from __future__ import annotations

import json

import msgspec


def json_text(found: object) -> str:
    """Of any structs: no name in it can move a cursor or turn a line round, and broken ones (half a character) pass."""
    return json.dumps(msgspec.to_builtins(found))

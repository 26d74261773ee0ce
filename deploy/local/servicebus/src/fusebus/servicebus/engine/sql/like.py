"""LIKE: wildcard patterns, matched without backtracking."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from fusebus.servicebus.engine.errors import FilterError
from fusebus.servicebus.engine.sql.values import MAX_TEXT_CHARACTERS

MAX_PATTERN_CHARACTERS: Final = 1024  # as long as an expression may be
_CACHED_PATTERNS: Final = 256  # most filters have one constant pattern; the rest come from messages
_ANY_CHARACTER: Final = None

Piece = list[str | None]
"""Characters that must be there in a row; None is any character."""


def like(text: str, pattern: str, escape: str | None) -> bool:
    """`%` is any text, `_` any character; what follows `escape` stands for itself. Raises FilterError."""
    if len(text) > MAX_TEXT_CHARACTERS:
        raise FilterError(f"a text longer than {MAX_TEXT_CHARACTERS} characters")
    return matcher(pattern, escape)(text)


@lru_cache(_CACHED_PATTERNS)
def matcher(pattern: str, escape: str | None) -> Callable[[str], bool]:
    """What a pattern asks of a text; raises FilterError.

    The pieces between `%` are looked for from left to right, each at its first place, and nothing is tried twice: the
    time is at most the text's length times the pattern's.
    """
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise FilterError(f"a pattern longer than {MAX_PATTERN_CHARACTERS} characters")
    if escape is not None and len(escape) != 1:
        raise FilterError("an escape that is not one character")
    pieces = _pieces(pattern, escape)
    whole = [re.compile(_expression(piece), re.DOTALL) for piece in pieces]
    if len(pieces) == 1:
        return lambda text: whole[0].fullmatch(text) is not None
    first, *middle, last = whole
    last_length = len(pieces[-1])

    def matches(text: str) -> bool:
        found = first.match(text)
        for piece in middle:
            if found is None:
                return False
            found = piece.search(text, found.end())
        return (
            found is not None
            and len(text) - last_length >= found.end()
            and last.match(text, len(text) - last_length) is not None
        )

    return matches


def _pieces(pattern: str, escape: str | None) -> list[Piece]:
    pieces: list[Piece] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == escape:
            literal = next(characters, None)
            if literal is None:
                raise FilterError("a pattern that ends with its escape character")
            pieces[-1].append(literal)
        elif character == "%":
            pieces.append([])
        else:
            pieces[-1].append(_ANY_CHARACTER if character == "_" else character)
    return pieces


def _expression(piece: Piece) -> str:
    return "".join("." if character is _ANY_CHARACTER else re.escape(character) for character in piece)

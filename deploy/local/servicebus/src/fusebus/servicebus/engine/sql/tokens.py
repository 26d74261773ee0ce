"""Cuts an expression into tokens, each with its place."""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from fusebus.servicebus.engine.errors import InvalidArgument

KEYWORDS: Final = frozenset(
    {"AND", "OR", "NOT", "IS", "NULL", "TRUE", "FALSE", "IN", "LIKE", "ESCAPE", "EXISTS"},
)
MAX_INTEGER: Final = 2**63 - 1  # constants are .NET's Int64

_PATTERN: Final = re.compile(
    r"""(?P<space>\s+)
      | (?P<hexadecimal>0[xX][0-9a-fA-F]+(?!\w))
      | (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
      | (?P<string>'(?:[^']|'')*')
      | (?P<quoted>\[(?:[^\]]|\]\])+\]|"(?:[^"]|"")+")
      | (?P<parameter>@[^\W\d]\w*)
      | (?P<word>[^\W\d_]\w*)
      | (?P<symbol><>|!=|<=|>=|[=<>().,;+\-*/%])""",
    re.VERBOSE,
)


class SqlSyntaxError(InvalidArgument):
    """`position` counts characters from 1."""

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} at position {position}")
        self.position = position


class Kind(Enum):
    CONSTANT = auto()
    KEYWORD = auto()
    NAME = auto()
    PARAMETER = auto()
    SYMBOL = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """`text` is a keyword in upper case, a name without its quotes, or what was written; `value` a constant's."""

    kind: Kind
    text: str
    position: int
    value: Any = None
    quoted: bool = False


def tokens_of(expression: str) -> list[Token]:
    """All tokens and an END; raises SqlSyntaxError."""
    found: list[Token] = []
    position = 0
    while position < len(expression):
        match = _PATTERN.match(expression, position)
        if match is None:
            raise _unreadable(expression, position)
        if match.lastgroup != "space":
            found.append(_token(str(match.lastgroup), match.group(), position + 1))
        position = match.end()
    found.append(Token(Kind.END, "the end", len(expression) + 1))
    return found


def _unreadable(expression: str, position: int) -> SqlSyntaxError:
    character = expression[position]
    if character in "'\"" or (character == "[" and "]" not in expression[position:]):
        return SqlSyntaxError("unclosed quote", position + 1)
    if character.isdigit():
        return SqlSyntaxError("malformed number", position + 1)
    return SqlSyntaxError(f"unexpected character {character!r}", position + 1)


def _token(group: str, text: str, position: int) -> Token:
    if group == "string":
        return Token(Kind.CONSTANT, text, position, text[1:-1].replace("''", "'"))
    if group in ("number", "hexadecimal"):
        return Token(Kind.CONSTANT, text, position, _number(text, position))
    if group == "quoted":
        close = "]" if text[0] == "[" else '"'
        return Token(Kind.NAME, text[1:-1].replace(close * 2, close), position, quoted=True)
    if group == "word":
        keyword = text.upper() in KEYWORDS
        return Token(Kind.KEYWORD, text.upper(), position) if keyword else Token(Kind.NAME, text, position)
    return Token(Kind.PARAMETER if group == "parameter" else Kind.SYMBOL, text, position)


def _number(text: str, position: int) -> int | float:
    if text[:2].lower() == "0x":
        value = int(text, 16)
    elif text.isdigit():
        value = int(text)
    else:
        return float(text)
    if value > MAX_INTEGER:
        raise SqlSyntaxError("an integer beyond 64 bits", position)
    return value

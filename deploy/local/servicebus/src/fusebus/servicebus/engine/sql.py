"""The SQL filter language: text in, a predicate over messages out, or an error that says where."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fusebus.servicebus.engine.errors import InvalidArgument
from fusebus.servicebus.engine.messages import Message

MAX_EXPRESSION_CHARACTERS: Final = 1024  # the service's limit
MAX_NESTING: Final = 64  # parentheses and NOTs within each other; keeps hostile text off the interpreter's stack

Value = Callable[[Message], Any]
Predicate = Callable[[Message], bool | None]
"""True, False, or None for SQL's unknown."""

SYSTEM_PROPERTIES: Final[dict[str, str]] = {
    "contenttype": "content_type",
    "correlationid": "correlation_id",
    "label": "subject",
    "messageid": "message_id",
    "partitionkey": "partition_key",
    "replyto": "reply_to",
    "replytosessionid": "reply_to_session_id",
    "sessionid": "session_id",
    "subject": "subject",
    "to": "to",
}

_TOKENS = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)
      | (?P<string>'(?:[^']|'')*')
      | (?P<quoted>\[(?:[^\]]|\]\])+\]|"(?:[^"]|"")+")
      | (?P<word>[^\W\d]\w*)
      | (?P<symbol><>|!=|<=|>=|[=<>().\-+])""",
    re.VERBOSE,
)
_KEYWORDS: Final = frozenset({"AND", "OR", "NOT", "IS", "NULL", "TRUE", "FALSE"})
_UNSUPPORTED: Final = frozenset({"IN", "LIKE", "EXISTS", "ESCAPE", "SET"})
_COMPARISONS: Final = frozenset({"=", "<>", "!=", "<", "<=", ">", ">="})


class SqlSyntaxError(InvalidArgument):
    """`position` counts characters from 1."""

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} at position {position}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    position: int


def parse(expression: str) -> Predicate:
    """The predicate of a filter expression; raises SqlSyntaxError."""
    if len(expression) > MAX_EXPRESSION_CHARACTERS:
        raise SqlSyntaxError(f"longer than {MAX_EXPRESSION_CHARACTERS} characters", MAX_EXPRESSION_CHARACTERS + 1)
    return _Parser(_tokens(expression)).parse()


def same(left: Any, right: Any) -> bool:
    """Equality as the service has it: numbers by value whatever their type, but never a bool with a number."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _tokens(expression: str) -> list[Token]:
    found: list[Token] = []
    position = 0
    while position < len(expression):
        match = _TOKENS.match(expression, position)
        if match is None:
            unclosed = expression[position] in "'\"["
            problem = "unclosed quote" if unclosed else f"unexpected character {expression[position]!r}"
            raise SqlSyntaxError(problem, position + 1)
        if match.lastgroup != "space":
            found.append(_token(match))
        position = match.end()
    found.append(Token("end", "the end", len(expression) + 1))
    return found


def _token(match: re.Match[str]) -> Token:
    kind, text, position = str(match.lastgroup), match.group(), match.start() + 1
    if kind == "word" and text.upper() in _KEYWORDS:
        return Token("keyword", text.upper(), position)
    if kind == "word" and text.upper() in _UNSUPPORTED:
        raise SqlSyntaxError(f"{text.upper()} is not supported by this broker", position)
    if kind == "quoted":
        close = "]" if text[0] == "[" else '"'
        return Token("word", text[1:-1].replace(close * 2, close), position)
    return Token(kind, text, position)


class _Parser:
    """Recursive descent; one method per precedence level, weakest first."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def parse(self) -> Predicate:
        predicate = self._disjunction()
        if self._peek().kind != "end":
            raise self._unexpected("AND, OR or the end")
        return predicate

    def _disjunction(self) -> Predicate:
        left = self._conjunction()
        while self._take("keyword", "OR"):
            left = _or(left, self._conjunction())
        return left

    def _conjunction(self) -> Predicate:
        left = self._negation()
        while self._take("keyword", "AND"):
            left = _and(left, self._negation())
        return left

    def _negation(self) -> Predicate:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise SqlSyntaxError(f"nested deeper than {MAX_NESTING}", self._peek().position)
        negated = self._take("keyword", "NOT")
        predicate = _not(self._negation()) if negated else self._primary()
        self._depth -= 1
        return predicate

    def _primary(self) -> Predicate:
        if self._take("symbol", "("):
            predicate = self._disjunction()
            if not self._take("symbol", ")"):
                raise self._unexpected("')'")
            return predicate
        return self._comparison()

    def _comparison(self) -> Predicate:
        left = self._operand()
        if self._take("keyword", "IS"):
            negated = self._take("keyword", "NOT")
            if not self._take("keyword", "NULL"):
                raise self._unexpected("NULL")
            return _is_null(left, negated)
        token = self._peek()
        if token.kind != "symbol" or token.text not in _COMPARISONS:
            raise self._unexpected("a comparison or IS [NOT] NULL")
        self._next += 1
        return _compare(token.text, left, self._operand())

    def _operand(self) -> Value:
        token = self._peek()
        self._next += 1
        if token.kind == "string":
            return _literal(token.text[1:-1].replace("''", "'"))
        if token.kind == "number":
            return _literal(_number(token.text))
        if token.kind == "symbol" and token.text in "+-" and self._peek().kind == "number":
            self._next += 1
            return _literal(_number(token.text + self._tokens[self._next - 1].text))
        if token.kind == "keyword" and token.text in ("TRUE", "FALSE"):
            return _literal(token.text == "TRUE")
        if token.kind == "word":
            return self._property(token)
        self._next -= 1
        raise self._unexpected("a property or a literal")

    def _property(self, first: Token) -> Value:
        if not self._take("symbol", "."):
            return _user_property(first.text)
        name = self._peek()
        if name.kind not in ("word", "keyword"):
            raise self._unexpected("a property name")
        self._next += 1
        scope = first.text.lower()
        if scope == "user":
            return _user_property(name.text)
        if scope != "sys":
            raise SqlSyntaxError(f"unknown scope {first.text!r} (sys and user exist)", first.position)
        if name.text.lower() not in SYSTEM_PROPERTIES:
            raise SqlSyntaxError(f"unknown system property {name.text!r}", name.position)
        return _system_property(SYSTEM_PROPERTIES[name.text.lower()])

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self, kind: str, text: str) -> bool:
        token = self._peek()
        taken = token.kind == kind and token.text == text
        self._next += taken
        return taken

    def _unexpected(self, expected: str) -> SqlSyntaxError:
        token = self._peek()
        return SqlSyntaxError(f"expected {expected}, found {token.text}", token.position)


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _literal(value: Any) -> Value:
    return lambda message: value


def _user_property(name: str) -> Value:
    return lambda message: message.application_properties.get(name)


def _system_property(field: str) -> Value:
    return lambda message: getattr(message, field)


def _not(inner: Predicate) -> Predicate:
    def negation(message: Message) -> bool | None:
        value = inner(message)
        return None if value is None else not value

    return negation


def _and(left: Predicate, right: Predicate) -> Predicate:
    def conjunction(message: Message) -> bool | None:
        first = left(message)
        if first is False:
            return False
        second = right(message)
        return False if second is False else (None if first is None or second is None else True)

    return conjunction


def _or(left: Predicate, right: Predicate) -> Predicate:
    def disjunction(message: Message) -> bool | None:
        first = left(message)
        if first is True:
            return True
        second = right(message)
        return True if second is True else (None if first is None or second is None else False)

    return disjunction


def _is_null(operand: Value, negated: bool) -> Predicate:
    return lambda message: (operand(message) is None) != negated


def _compare(operator: str, left: Value, right: Value) -> Predicate:
    def comparison(message: Message) -> bool | None:
        first, second = left(message), right(message)
        if first is None or second is None:
            return None
        if operator == "=":
            return same(first, second)
        if operator in ("<>", "!="):
            return not same(first, second)
        return _ordered(operator, first, second)

    return comparison


def _ordered(operator: str, first: Any, second: Any) -> bool | None:
    """Values of kinds that have no order among each other compare as unknown."""
    try:
        less, equal = bool(first < second), same(first, second)
    except TypeError:
        return None
    return {"<": less, "<=": less or equal, ">": not less and not equal, ">=": not less}[operator]

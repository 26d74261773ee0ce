"""The grammar of filters: operators by their rank, so that the stack grows only with what is written nested."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from fusebus.servicebus.engine.errors import FilterError
from fusebus.servicebus.engine.sql import nodes
from fusebus.servicebus.engine.sql.nodes import Constant, Predicate, Value
from fusebus.servicebus.engine.sql.properties import Property
from fusebus.servicebus.engine.sql.tokens import Kind, SqlSyntaxError, Token, tokens_of

MAX_EXPRESSION_CHARACTERS: Final = 1024  # the service's limit
MAX_NESTING: Final = 64  # parentheses, signs and NOTs within each other; keeps hostile text off the stack

# Ranks: what binds tighter has the higher one.
_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _SIGN = range(1, 8)
_COMPARISONS: Final = frozenset({"=", "<>", "!=", "<", "<=", ">", ">="})
_SUMS: Final = frozenset({"+", "-"})
_PRODUCTS: Final = frozenset({"*", "/", "%"})
_RANKS: Final[dict[str, int]] = {
    "OR": _OR,
    "AND": _AND,
    **dict.fromkeys((*_COMPARISONS, "IS", "IN", "LIKE", "NOT"), _COMPARISON),
    **dict.fromkeys(_SUMS, _SUM),
    **dict.fromkeys(_PRODUCTS, _PRODUCT),
}


@dataclass(frozen=True, slots=True)
class Operand:
    """Something parsed: a value, or a predicate, which only AND, OR, NOT and parentheses take."""

    compute: Callable[..., Any]
    position: int
    is_predicate: bool = False
    is_property: bool = False


def parse_filter(expression: str, parameters: Mapping[str, Any]) -> tuple[Predicate, bool]:
    """The predicate of a filter expression, and whether it asks an ArrivedMessage; raises SqlSyntaxError."""
    parser = Parser(expression, parameters)
    found = parser.predicate()
    parser.expect_end("AND, OR or the end")
    return found, parser.asks_arrival


class Parser:
    """Reads filters, and the expressions of actions. `parameters` by name, with or without @, in any case."""

    def __init__(self, expression: str, parameters: Mapping[str, Any]) -> None:
        if len(expression) > MAX_EXPRESSION_CHARACTERS:
            raise SqlSyntaxError(f"longer than {MAX_EXPRESSION_CHARACTERS} characters", MAX_EXPRESSION_CHARACTERS + 1)
        self._tokens = tokens_of(expression)
        self._next = 0
        self._depth = 0
        self.asks_arrival = False
        """Whether something that was read asks for what only an ArrivedMessage has."""
        self._parameters = {name.lstrip("@").lower(): value for name, value in parameters.items()}

    def predicate(self) -> Predicate:
        return self._predicate_of(self._parse(_OR))

    def value(self) -> Value:
        return self._value_of(self._parse(_SUM))

    # Tokens

    def peek(self) -> Token:
        return self._tokens[self._next]

    def advance(self) -> Token:
        token = self._tokens[self._next]
        self._next += token.kind is not Kind.END
        return token

    def take(self, *texts: str) -> Token | None:
        """The next token if it is one of these symbols or keywords."""
        token = self.peek()
        if token.kind in (Kind.SYMBOL, Kind.KEYWORD) and token.text in texts:
            return self.advance()
        return None

    def expect(self, text: str) -> None:
        if self.take(text) is None:
            raise self.unexpected(f"'{text}'" if not text.isalpha() else text)

    def expect_end(self, wanted: str) -> None:
        if self.peek().kind is not Kind.END:
            raise self.unexpected(wanted)

    def unexpected(self, wanted: str) -> SqlSyntaxError:
        token = self.peek()
        return SqlSyntaxError(f"expected {wanted}, found {token.text[:40]}", token.position)

    # Expressions

    def _parse(self, rank: int) -> Operand:
        """One operand and all operators after it that bind at least as tightly as `rank`."""
        left = self._prefix()
        while (found := self._operator_rank()) >= rank:
            if found in (_OR, _AND):
                left = self._junction(left, found)
            elif left.is_predicate:
                raise self.unexpected("AND, OR or the end")
            elif found == _COMPARISON:
                left = self._comparison(left)
            else:
                left = self._chain(left, found)
        return left

    def _operator_rank(self) -> int:
        token = self.peek()
        return _RANKS.get(token.text, 0) if token.kind in (Kind.SYMBOL, Kind.KEYWORD) else 0

    def _junction(self, first: Operand, rank: int) -> Operand:
        word = "OR" if rank == _OR else "AND"
        parts = [self._predicate_of(first)]
        while self.take(word):
            parts.append(self._predicate_of(self._parse(rank + 1)))
        return Operand((nodes.any_of if rank == _OR else nodes.all_of)(parts), first.position, is_predicate=True)

    def _chain(self, first: Operand, rank: int) -> Operand:
        rest: list[tuple[str, Value]] = []
        while token := self.take(*(_SUMS if rank == _SUM else _PRODUCTS)):
            rest.append((token.text, self._value_of(self._parse(rank + 1))))
        return Operand(nodes.chain(first.compute, rest), first.position)

    def _comparison(self, left: Operand) -> Operand:
        operator = self.advance().text
        if operator == "IS":
            predicate = self._null_test(left)
        elif operator in _COMPARISONS:
            predicate = nodes.compare(operator, left.compute, self.value())
        else:
            predicate = self._match(left, operator)
        return Operand(predicate, left.position, is_predicate=True)

    def _null_test(self, left: Operand) -> Predicate:
        if not left.is_property:
            raise SqlSyntaxError("only a property can be tested for NULL", left.position)
        negated = self.take("NOT") is not None
        self.expect("NULL")
        return nodes.negation(nodes.is_null(left.compute), negated)

    def _match(self, left: Operand, operator: str) -> Predicate:
        """[NOT] IN and [NOT] LIKE, after their first word."""
        negated = operator == "NOT"
        if negated:
            word = self.take("IN", "LIKE")
            if word is None:
                raise self.unexpected("IN or LIKE")
            operator = word.text
        found = self._membership(left) if operator == "IN" else self._similarity(left)
        return nodes.negation(found, negated)

    def _membership(self, left: Operand) -> Predicate:
        self.expect("(")
        choices = [self.value()]
        while self.take(","):
            choices.append(self.value())
        self.expect(")")
        return nodes.is_one_of(left.compute, choices)

    def _similarity(self, left: Operand) -> Predicate:
        position = self.peek().position
        pattern = self.value()
        escape = self.value() if self.take("ESCAPE") else None
        try:
            return nodes.is_like(left.compute, pattern, escape)
        except FilterError as error:
            raise SqlSyntaxError(str(error), position) from error

    def _prefix(self) -> Operand:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise SqlSyntaxError(f"nested deeper than {MAX_NESTING}", self.peek().position)
        found = self._operand(self.peek())
        self._depth -= 1
        return found

    def _operand(self, token: Token) -> Operand:
        if self.take("NOT"):
            return Operand(nodes.negation(self._predicate_of(self._parse(_NOT))), token.position, is_predicate=True)
        if self.take("("):
            inner = self._parse(_OR)
            self.expect(")")
            return Operand(inner.compute, token.position, inner.is_predicate)
        if self.take("+", "-"):
            return self._signed(token)
        if self.take("EXISTS"):
            return self._existence(token)
        return self._atom(token)

    def _signed(self, sign: Token) -> Operand:
        operand = self._value_of(self._parse(_SIGN))
        try:
            return Operand(nodes.signed(sign.text, operand), sign.position)
        except FilterError as error:
            raise SqlSyntaxError(str(error), sign.position) from error

    def _existence(self, token: Token) -> Operand:
        self.expect("(")
        found = self.property()
        self.expect(")")
        return Operand(nodes.exists(found), token.position, is_predicate=True)

    def _atom(self, token: Token) -> Operand:
        if token.kind is Kind.CONSTANT:
            return Operand(Constant(self.advance().value), token.position)
        if word := self.take("TRUE", "FALSE", "NULL"):
            return Operand(Constant({"TRUE": True, "FALSE": False}.get(word.text)), token.position)
        if token.kind is Kind.PARAMETER:
            return Operand(Constant(self._parameter(self.advance())), token.position)
        if token.kind is Kind.NAME:
            return self._function(token) or Operand(nodes.read(self.property()), token.position, is_property=True)
        raise self.unexpected("a property or a literal")

    def _parameter(self, token: Token) -> Any:
        name = token.text.lstrip("@").lower()
        if name not in self._parameters:
            raise SqlSyntaxError(f"parameter {token.text} has no value", token.position)
        return self._parameters[name]

    def _function(self, token: Token) -> Operand | None:
        after = self._tokens[self._next + 1]  # END is never a name: there is a next token
        if token.quoted or after.kind is not Kind.SYMBOL or after.text != "(":
            return None
        name = token.text.lower()
        if name not in ("newid", "property", "p"):
            raise SqlSyntaxError(f"unknown function {token.text!r} (newid, property and p exist)", token.position)
        self._next += 2
        if name == "newid":
            self.expect(")")
            return Operand(lambda message: uuid4(), token.position)
        argument = self.value()
        self.expect(")")
        self.asks_arrival = True  # it may: the name is known only with the message
        return Operand(nodes.named_property(argument), token.position, is_property=True)

    def property(self) -> Property:
        """[scope.]name; raises SqlSyntaxError for a scope or a system property that does not exist."""
        first = self.peek()
        if first.kind is not Kind.NAME:
            raise self.unexpected("a property name")
        self.advance()
        if not self.take("."):
            return Property(first.text, system=False)
        name = self.peek()
        if name.kind not in (Kind.NAME, Kind.KEYWORD):
            raise self.unexpected("a property name")
        self.advance()
        if first.text.lower() not in ("sys", "user"):
            raise SqlSyntaxError(f"unknown scope {first.text!r} (sys and user exist)", first.position)
        found = Property(name.text, system=first.text.lower() == "sys")
        if not found.is_known:
            raise SqlSyntaxError(f"unknown system property {name.text!r}", name.position)
        self.asks_arrival |= found.asks_arrival
        return found

    # Kinds

    def _predicate_of(self, found: Operand) -> Predicate:
        if not found.is_predicate:
            raise self.unexpected("a comparison or IS [NOT] NULL")
        return found.compute

    def _value_of(self, found: Operand) -> Value:
        if found.is_predicate:
            raise SqlSyntaxError("a value was expected here, not a condition", found.position)
        return found.compute

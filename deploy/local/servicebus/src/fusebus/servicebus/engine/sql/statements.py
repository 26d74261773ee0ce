"""The grammar of actions: SET and REMOVE, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fusebus.servicebus.engine.sql.nodes import Value
from fusebus.servicebus.engine.sql.parser import Parser
from fusebus.servicebus.engine.sql.properties import SYSTEM_PROPERTIES, Property
from fusebus.servicebus.engine.sql.tokens import Kind, SqlSyntaxError

MAX_STATEMENTS: Final = 32  # the service's limit


@dataclass(frozen=True, slots=True)
class Statement:
    """SET target = value, or REMOVE target where there is no value."""

    target: Property
    value: Value | None


def parse_action(expression: str, parameters: Mapping[str, Any]) -> tuple[tuple[Statement, ...], bool]:
    """Statements, with or without `;` or `,` between them, and whether they ask an ArrivedMessage.

    Raises SqlSyntaxError.
    """
    parser = Parser(expression, parameters)
    found = [_statement(parser)]
    while _more(parser):
        if len(found) == MAX_STATEMENTS:
            raise SqlSyntaxError(f"more than {MAX_STATEMENTS} statements", parser.peek().position)
        found.append(_statement(parser))
    parser.expect_end("SET, REMOVE or the end")
    return tuple(found), parser.asks_arrival


def _more(parser: Parser) -> bool:
    parser.take(";", ",")
    return parser.peek().kind is Kind.NAME


def _statement(parser: Parser) -> Statement:
    word = parser.peek()
    verb = word.text.upper() if word.kind is Kind.NAME and not word.quoted else ""
    if verb not in ("SET", "REMOVE"):
        raise parser.unexpected("SET or REMOVE")
    parser.advance()
    target = _target(parser)
    if verb == "REMOVE":
        return Statement(target, None)
    parser.expect("=")
    return Statement(target, parser.value())


def _target(parser: Parser) -> Property:
    position = parser.peek().position
    target = parser.property()
    if target.system and target.name.lower() not in SYSTEM_PROPERTIES:
        raise SqlSyntaxError(f"the system property {target.name!r} cannot be changed", position)
    return target

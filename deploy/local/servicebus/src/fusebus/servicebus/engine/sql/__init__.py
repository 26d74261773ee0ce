"""The SQL language of rules: text in, predicates and statements over messages out, or an error that says where."""

from fusebus.servicebus.engine.sql.nodes import Predicate
from fusebus.servicebus.engine.sql.parser import MAX_EXPRESSION_CHARACTERS, MAX_NESTING, parse_filter
from fusebus.servicebus.engine.sql.properties import SYSTEM_PROPERTIES
from fusebus.servicebus.engine.sql.statements import MAX_STATEMENTS, Statement, parse_action
from fusebus.servicebus.engine.sql.tokens import SqlSyntaxError
from fusebus.servicebus.engine.sql.values import same

__all__ = [
    "MAX_EXPRESSION_CHARACTERS",
    "MAX_NESTING",
    "MAX_STATEMENTS",
    "SYSTEM_PROPERTIES",
    "Predicate",
    "SqlSyntaxError",
    "Statement",
    "parse_action",
    "parse_filter",
    "same",
]

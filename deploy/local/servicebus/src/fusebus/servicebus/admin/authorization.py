"""Authorization rules of queues and topics as the API's descriptions, and back."""

import base64
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final
from xml.etree.ElementTree import Element

from fusebus.servicebus.admin.atom import element, tag, text_of
from fusebus.servicebus.admin.durations import format_instant
from fusebus.servicebus.engine import AuthorizationRule, InvalidArgument, Right
from fusebus.servicebus.engine.rights import ALL_RIGHTS

MAX_RULES: Final = 12  # of one entity, as in the service
MAX_NAME_CHARACTERS: Final = 256
_KEY_BYTES: Final = 32


def describe_rules(rules: Sequence[AuthorizationRule]) -> str:
    return f"<AuthorizationRules>{''.join(map(_describe, rules))}</AuthorizationRules>"


def _describe(rule: AuthorizationRule) -> str:
    rights = "".join(element("AccessRights", right.value) for right in Right if right in rule.rights)
    return (
        '<AuthorizationRule i:type="SharedAccessAuthorizationRule">'
        f"{element('ClaimType', 'SharedAccessKey')}{element('ClaimValue', 'None')}<Rights>{rights}</Rights>"
        f"{element('CreatedTime', format_instant(rule.created_at))}"
        f"{element('ModifiedTime', format_instant(rule.modified_at))}"
        f"{element('KeyName', rule.name)}{element('PrimaryKey', rule.primary_key)}"
        f"{element('SecondaryKey', rule.secondary_key)}</AuthorizationRule>"
    )


def read_rules(found: Element, current: Sequence[AuthorizationRule], now: float) -> tuple[AuthorizationRule, ...]:
    """Keys that are left out are those of the `current` rule of the name, or made. Raises InvalidArgument."""
    known = {rule.name: rule for rule in current}
    rules = tuple(_read(given, known, now) for given in found.iterfind(tag("AuthorizationRule")))
    if len(rules) > MAX_RULES:
        raise InvalidArgument(f"AuthorizationRules: more than {MAX_RULES}.")
    if len({rule.name for rule in rules}) < len(rules):
        raise InvalidArgument("AuthorizationRules: a KeyName occurs twice.")
    return rules


def _read(found: Element, known: dict[str, AuthorizationRule], now: float) -> AuthorizationRule:
    name = (text_of(found, "KeyName") or "").strip()
    if not name or len(name) > MAX_NAME_CHARACTERS:
        raise InvalidArgument(f"AuthorizationRules: KeyName must have 1 to {MAX_NAME_CHARACTERS} characters.")
    old = known.get(name)
    rights = read_rights(name, (given.text or "" for given in found.iterfind(f"{tag('Rights')}/{tag('AccessRights')}")))
    primary, secondary = text_of(found, "PrimaryKey"), text_of(found, "SecondaryKey")
    if old is None:
        return AuthorizationRule(name, rights, primary or new_key(), secondary or new_key(), now, now)
    new = replace(
        old, rights=rights, primary_key=primary or old.primary_key, secondary_key=secondary or old.secondary_key
    )
    return new if new == old else replace(new, modified_at=now)


def read_rights(rule: str, texts: Iterable[str]) -> frozenset[Right]:
    """Raises InvalidArgument."""
    try:
        rights = frozenset(Right(text.strip()) for text in texts)
    except ValueError as error:
        raise InvalidArgument(f"AuthorizationRules: Rights of '{rule}': {error}.") from error
    if not rights:
        raise InvalidArgument(f"AuthorizationRules: Rights of '{rule}' are missing.")
    if Right.MANAGE in rights and rights != ALL_RIGHTS:
        raise InvalidArgument(f"AuthorizationRules: Rights of '{rule}': Manage includes Send and Listen.")
    return rights


def new_key() -> str:
    """A random key, as the service makes them."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode("ascii")

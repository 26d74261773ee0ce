"""Who may do what: rights, and the keys that give them for one entity or the whole namespace."""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Right(Enum):
    """The values are those of the administration API."""

    SEND = "Send"
    LISTEN = "Listen"
    MANAGE = "Manage"


ALL_RIGHTS: Final = frozenset(Right)


@dataclass(frozen=True, slots=True)
class AuthorizationRule:
    """Either key gives the rights; Manage means all three, as in the service."""

    name: str
    rights: frozenset[Right]
    primary_key: str
    secondary_key: str
    created_at: float = 0.0
    modified_at: float = 0.0

    @property
    def granted(self) -> frozenset[Right]:
        return ALL_RIGHTS if Right.MANAGE in self.rights else self.rights

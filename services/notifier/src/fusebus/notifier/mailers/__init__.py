"""Where mail and cards go: one file per variant, and the two ways in which a send can fail."""

from __future__ import annotations

from email.message import EmailMessage
from typing import Protocol


class NotSent(Exception):
    """The mail or card certainly did not go out. `passing`: a later try may succeed."""

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


class OutcomeUnknown(Exception):
    """The mail or card may or may not have gone out: the answer to its content never came."""


class Mailer(Protocol):
    """Sends one finished mail."""

    async def send(self, message: EmailMessage) -> None:
        """Hand the mail over; returning means it was taken. Raises NotSent or OutcomeUnknown."""


class Channel(Protocol):
    """Shows cards to people."""

    @property
    def setting(self) -> str:
        """The variable that holds its address, for whom it is to be told that something is wrong with it."""

    async def post(self, card: bytes) -> None:
        """Hand the card over; returning means it was taken. Raises NotSent or OutcomeUnknown."""

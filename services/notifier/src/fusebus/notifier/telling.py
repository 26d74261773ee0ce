"""Tells people: each run and each alert by one mail and, where a channel of Teams has a webhook, by one card."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from email.message import EmailMessage

from fusebus.ledger import LedgerError, MailState
from fusebus.notifier.alerts import Alert, refused_alert
from fusebus.notifier.cards import alert_card, alert_card_key
from fusebus.notifier.mail import Envelope, alert_mail, message_id
from fusebus.notifier.mailers import Channel
from fusebus.notifier.ports import Ports
from fusebus.notifier.send_once import by_card, by_mail, send_once

_log = logging.getLogger(__name__)


def envelope_of(ports: Ports) -> Envelope:
    """Who gets mail from whom, from the settings."""
    settings = ports.settings
    return Envelope(sender=settings.sender, recipients=settings.recipients, report_address=settings.report_address)


async def mailed(
    key: str, mail_key: str, write: Callable[[], Awaitable[EmailMessage]], since: datetime, ports: Ports
) -> bool:
    """Whether the mail's outcome is known now; `key` names it in the ledger. Raises LedgerError, and as `write`."""
    if not ports.settings.recipients:
        return True
    header = message_id(mail_key, envelope_of(ports))
    return await send_once(key, header, write, since, ports, by_mail(ports)) is not None


async def carded(key: str, write: Callable[[], bytes], since: datetime, ports: Ports, channel: Channel | None) -> bool:
    """The same of a card. One that the channel refuses is told to the operators by mail. Raises LedgerError."""
    if channel is None:
        return True

    async def card() -> bytes:
        return await asyncio.to_thread(write)  # the names of thousands of photos are made fit to be shown

    before = await ports.ledger.mail_marker(key)
    state = await send_once(key, key, card, since, ports, by_card(channel, ports))
    if state is MailState.REFUSED and (before is None or before.state is not MailState.REFUSED):
        await _tell_refused(key, ports, channel)
    return state is not None


async def told(alert: Alert, ports: Ports, *, recipients: tuple[str, ...] = (), card: bool = True) -> bool:
    """Whether mail and card of the alert are settled. `recipients`: in place of the settings'. Raises LedgerError."""
    envelope = envelope_of(ports)
    if recipients:
        envelope = Envelope(sender=envelope.sender, recipients=recipients)

    async def write() -> EmailMessage:
        return alert_mail(alert, envelope, ports.clock())

    by_both = (
        await mailed(alert.key, alert.key, write, alert.since, ports),
        await carded(
            alert_card_key(alert), lambda: alert_card(alert), alert.since, ports, ports.alerts_channel if card else None
        ),
    )
    return all(by_both)


async def _tell_refused(card: str, ports: Ports, channel: Channel) -> None:
    """One mail a day; nothing waits for it, for the log has it too."""
    try:
        marker = await ports.ledger.mail_marker(card)
        reason = marker.detail if marker else ""
        await told(refused_alert(channel.setting, card, reason, ports.clock()), ports, card=False)
    except LedgerError as error:
        _log.warning("the operators get no mail about the refused card: %s", error)

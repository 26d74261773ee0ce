"""The real world for the notifier: which mailer, what time, whose life."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from datetime import UTC, datetime
from typing import assert_never

from fusebus.blobs import StorageError
from fusebus.host import Secret
from fusebus.ledger import LedgerError
from fusebus.notifier.handler import Handler
from fusebus.notifier.mailers import Channel, Mailer
from fusebus.notifier.mailers.folder import FolderMailer
from fusebus.notifier.mailers.smtp import SmtpMailer
from fusebus.notifier.mailers.teams import TeamsWebhook
from fusebus.notifier.settings import NotifierSettings

_log = logging.getLogger(__name__)


def mailer_of(settings: NotifierSettings) -> Mailer:
    """The mailer that the settings choose. Raises ValueError for settings that it can't work with."""
    match settings.mailer:
        case "folder":
            return FolderMailer(settings.mail_folder)
        case "smtp":
            return SmtpMailer(settings.smtp, settings.mail_timeout_seconds)
    assert_never(settings.mailer)


def channels_of(settings: NotifierSettings) -> tuple[Channel | None, Channel | None]:
    """Where cards of runs and of alerts go. Raises ValueError for an address that can't be a webhook's."""
    teams = settings.teams

    def channel(address: Secret, setting: str) -> Channel | None:
        return TeamsWebhook(address, setting, teams.timeout_seconds) if address else None

    runs = channel(teams.webhook, "FUSEBUS_TEAMS_WEBHOOK")
    return runs, channel(teams.alerts_webhook, "FUSEBUS_TEAMS_ALERTS_WEBHOOK") or runs


def now() -> datetime:
    """UTC."""
    return datetime.now(UTC)


def life() -> str:
    """This process's life: host, process number and start, never the same twice."""
    return f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"


async def watch_dead_letters(handler: Handler, interval: float, stop: asyncio.Event) -> None:
    """Let the handler look at the dead letters each `interval` seconds until `stop` is set."""
    while not stop.is_set():
        try:
            await handler.watch_dead_letters()
        except (LedgerError, StorageError) as error:
            _log.warning("the look at dead letters failed, the next one follows: %s", error)
        except Exception:
            _log.exception("the look at dead letters failed, the next one follows")
        try:
            await asyncio.wait_for(stop.wait(), interval)
        except TimeoutError:
            continue

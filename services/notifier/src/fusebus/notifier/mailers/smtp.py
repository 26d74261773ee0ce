"""Mail by SMTP, step by step, so that a failure is told as certain or unknown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from email.utils import getaddresses

from aiosmtplib import (
    SMTP,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from fusebus.notifier.mailers import NotSent, OutcomeUnknown
from fusebus.notifier.settings import SmtpSettings

_log = logging.getLogger(__name__)

PERMANENT = 500  # reply codes from here on: the same mail will never be taken
LOGIN_CODES = range(530, 539)  # permanent for SMTP, but passing for us: somebody corrects the setting
QUIT_SECONDS = 2.0


class SmtpMailer:
    """One connection per mail: mails are rare, and an idle one would be gone by the next."""

    def __init__(self, settings: SmtpSettings, timeout: float) -> None:
        """`timeout` in seconds, of a whole send. Raises ValueError where a password would travel unencrypted."""
        if settings.security == "none" and settings.username:
            raise ValueError("FUSEBUS_SMTP_USERNAME needs FUSEBUS_SMTP_SECURITY starttls or tls")
        self._settings = settings
        self._timeout = timeout

    async def send(self, message: EmailMessage) -> None:
        """Send to all of To. Raises NotSent before the relay has the content, OutcomeUnknown after."""
        session = self._session()
        handed_over = False
        try:
            async with asyncio.timeout(self._timeout):
                await session.connect()
                await _address(session, message)
                handed_over = True
                await session.data(message.as_bytes(policy=WIRE))
            await _leave(session)
        except SMTPResponseException as error:
            raise NotSent(f"{error.code} {error.message}", passing=_passing(error)) from error
        except (SMTPException, OSError, TimeoutError, EOFError) as error:
            text = f"{self._settings.host}:{self._settings.port}: {type(error).__name__}: {error}"
            if handed_over:
                raise OutcomeUnknown(text) from error
            raise NotSent(text, passing=True) from error
        finally:
            session.close()

    def _session(self) -> SMTP:
        settings = self._settings
        encrypted = settings.security != "none"
        return SMTP(
            hostname=settings.host,
            port=settings.port,
            timeout=self._timeout,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=ssl.create_default_context(cafile=settings.ca_file or None) if encrypted else None,
            username=settings.username or None,
            password=settings.password.reveal() or None,
        )


async def _address(session: SMTP, message: EmailMessage) -> None:
    """Name the sender and the recipients; the mail goes out if one recipient is taken."""
    [(_, sender)] = getaddresses([message["From"]])
    recipients = [address for _, address in getaddresses([message["To"]])]
    await session.mail(sender)
    refusals: list[SMTPRecipientRefused] = []
    for recipient in recipients:
        try:
            await session.rcpt(recipient)
        except SMTPRecipientRefused as error:
            refusals.append(error)
            _log.error("recipient refused", extra={"recipient": recipient, "code": error.code, "reply": error.message})
    if len(refusals) == len(recipients):
        raise min(refusals, key=lambda refusal: refusal.code)  # one that is worth a later try before one that isn't


async def _leave(session: SMTP) -> None:
    """Say goodbye; the relay has taken the mail, so nothing that happens now matters."""
    with contextlib.suppress(SMTPException, OSError, TimeoutError, EOFError):
        async with asyncio.timeout(QUIT_SECONDS):
            await session.quit()


def _passing(error: SMTPResponseException) -> bool:
    """Whether a later try may succeed: anything but a final answer to this mail's sender, recipients or content."""
    about_this_mail = isinstance(error, SMTPSenderRefused | SMTPRecipientRefused | SMTPDataError)
    return not about_this_mail or error.code < PERMANENT or error.code in LOGIN_CODES

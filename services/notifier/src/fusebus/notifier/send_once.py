"""Sends a mail at most once, whatever dies meanwhile: a marker is written before (intent) and after (done)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from email.message import EmailMessage

from fusebus.ledger import MailMarker, MailState
from fusebus.notifier import policy, telemetry
from fusebus.notifier.mailers import NotSent, OutcomeUnknown
from fusebus.notifier.policy import Send
from fusebus.notifier.ports import Ports

_log = logging.getLogger(__name__)


async def send_once(
    key: str, message_id: str, write: Callable[[], Awaitable[EmailMessage]], since: datetime, ports: Ports
) -> bool:
    """True once the mail's outcome is known: it is out, refused for good, or shown to the operator.

    False: look again later. `key` names the mail in the ledger, `write` makes it when it is really to be sent, `since`
    is when it became due: after `mail_patience_seconds` seconds an unreachable relay counts as a refusal.
    """
    if not ports.settings.recipients:
        return True
    if key in ports.handed_over:
        await _done(key, ports)
        return True
    marker = await ports.ledger.mail_marker(key)
    step = policy.mail_step(_mark(marker), ports.clock(), mail_timeout=ports.settings.mail_timeout_seconds)
    match step.send:
        case Send.SETTLED:
            return True
        case Send.WAIT:
            _log.info("mail is left alone for now", extra={"mail": key, "because": step.because})
            return False
        case Send.UNKNOWN:
            assert marker is not None
            _log.error(
                "it is not known whether this mail went out: look for its Message-ID at the relay",
                extra={"mail": key, "message_id_header": marker.message_id, "because": step.because},
            )
            await ports.ledger.mail_failed(marker, MailState.UNKNOWN, step.because)
            telemetry.mail("unknown")
            return True
    mail = await write()  # before the intent: what fails here certainly sends nothing
    intent = await _intend(key, message_id, marker, ports)
    return intent is not None and await _send(mail, intent, since, ports)


def _mark(marker: MailMarker | None) -> policy.Mark | None:
    if marker is None:
        return None
    return policy.Mark(
        tried_at=marker.tried_at or marker.intended_at,
        unsure_since=marker.intended_at,
        not_sent=marker.state is MailState.NOT_SENT,
        settled=marker.done_at is not None or marker.state in (MailState.DONE, MailState.REFUSED, MailState.UNKNOWN),
    )


async def _intend(key: str, message_id: str, marker: MailMarker | None, ports: Ports) -> MailMarker | None:
    """Our own intent to send now; None where somebody else was quicker."""
    by = f"{ports.life}/{uuid.uuid4().hex[:12]}"  # one try: two handlers of this process must exclude each other too
    if marker is not None:
        return await ports.ledger.repeat_mail(marker, by, ports.clock())
    intent = await ports.ledger.intend_mail(key, message_id, by, ports.clock())
    return intent if intent.intended_by == by and intent.done_at is None else None


async def _send(mail: EmailMessage, intent: MailMarker, since: datetime, ports: Ports) -> bool:
    told = {"mail": intent.run_id, "message_id_header": intent.message_id, "tries": intent.tries}
    try:
        await ports.mailer.send(mail)
    except NotSent as error:
        first_doubt = (
            intent.intended_at == intent.tried_at
        )  # else an earlier try may be out, whatever became of this one
        patient = ports.clock() - since < timedelta(seconds=ports.settings.mail_patience_seconds)
        if (error.passing and patient) or not first_doubt:
            _log.warning("mail was not sent, another try follows: %s", error, extra=told)
            telemetry.mail("not_sent")
            await ports.ledger.mail_failed(
                intent, MailState.NOT_SENT if first_doubt else MailState.INTENDED, str(error)
            )
            return False
        _log.error("mail will not be sent: %s", error, extra=told)
        telemetry.mail("refused")
        await ports.ledger.mail_failed(intent, MailState.REFUSED, str(error))
        return True
    except OutcomeUnknown as error:
        _log.warning("it is not known whether the mail went out: %s", error, extra=told)
        telemetry.mail("unknown")
        await ports.ledger.mail_failed(intent, MailState.INTENDED, str(error))
        return False
    _log.info("mail sent", extra=told)
    telemetry.mail("sent")
    ports.handed_over.add(intent.run_id)
    await _done(intent.run_id, ports)
    return True


async def _done(key: str, ports: Ports) -> None:
    """Where this fails the mail is out all the same: the next look must not repeat it."""
    await ports.ledger.mail_done(key, ports.clock())
    ports.handed_over.discard(key)

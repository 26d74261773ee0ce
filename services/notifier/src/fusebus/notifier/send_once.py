"""Sends a mail or card at most once, whatever dies meanwhile: a marker is written before (intent) and after (done)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Generic, Literal, TypeVar

from fusebus.ledger import MailMarker, MailState
from fusebus.notifier import policy, telemetry
from fusebus.notifier.mailers import Channel, NotSent, OutcomeUnknown
from fusebus.notifier.policy import Send
from fusebus.notifier.ports import Ports

_log = logging.getLogger(__name__)


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Way(Generic[T]):
    """How something reaches people."""

    what: Literal["mail", "card"]
    send: Callable[[T], Awaitable[None]]
    """Raises NotSent, OutcomeUnknown."""
    timeout_seconds: float
    """A send may take so long; another process waits as long before it repeats one."""
    patience_seconds: float
    """From when it became due; then what certainly did not go out is given up."""
    where_to_look: str
    """For the operator, whether it went out after all."""


def by_mail(ports: Ports) -> Way[EmailMessage]:
    """Through the mailer of the settings."""
    return Way(
        what="mail",
        send=ports.mailer.send,
        timeout_seconds=ports.settings.mail_timeout_seconds,
        patience_seconds=ports.settings.mail_patience_seconds,
        where_to_look="look for its Message-ID at the relay",
    )


def by_card(channel: Channel, ports: Ports) -> Way[bytes]:
    """Through a webhook of Teams."""
    return Way(
        what="card",
        send=channel.post,
        timeout_seconds=ports.settings.teams.timeout_seconds,
        patience_seconds=ports.settings.teams.patience_seconds,
        where_to_look="look for it in the channel",
    )


async def send_once(
    key: str, message_id: str, write: Callable[[], Awaitable[T]], since: datetime, ports: Ports, way: Way[T]
) -> MailState | None:
    """How it ended, once that is known: DONE (it is out), REFUSED (for good) or UNKNOWN (shown to the operator).

    None: look again later. `key` names it in the ledger, `write` makes it when it is really to be sent, `since`
    is when it became due: after `way.patience_seconds` what can't be reached counts as a refusal.
    """
    if key in ports.handed_over:
        await _done(key, ports)
        return MailState.DONE
    marker = await ports.ledger.mail_marker(key)
    step = policy.mail_step(_mark(marker), ports.clock(), mail_timeout=way.timeout_seconds)
    match step.send:
        case Send.SETTLED:
            assert marker is not None
            return MailState.DONE if marker.done_at is not None else marker.state
        case Send.WAIT:
            _log.info("%s is left alone for now", way.what, extra={"mail": key, "because": step.because})
            return None
        case Send.UNKNOWN:
            assert marker is not None
            _log.error(
                "it is not known whether this %s went out: %s",
                way.what,
                way.where_to_look,
                extra={"mail": key, "message_id_header": marker.message_id, "because": step.because},
            )
            await ports.ledger.mail_failed(marker, MailState.UNKNOWN, step.because)
            telemetry.mail(way.what, "unknown")
            return MailState.UNKNOWN
    content = await write()  # before the intent: what fails here certainly sends nothing
    intent = await _intend(key, message_id, marker, ports)
    return None if intent is None else await _send(content, intent, since, ports, way)


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


async def _send(content: T, intent: MailMarker, since: datetime, ports: Ports, way: Way[T]) -> MailState | None:
    told = {"mail": intent.run_id, "message_id_header": intent.message_id, "tries": intent.tries}
    try:
        await way.send(content)
    except NotSent as error:
        first_doubt = (
            intent.intended_at == intent.tried_at
        )  # else an earlier try may be out, whatever became of this one
        patient = ports.clock() - since < timedelta(seconds=way.patience_seconds)
        if (error.passing and patient) or not first_doubt:
            _log.warning("%s was not sent, another try follows: %s", way.what, error, extra=told)
            telemetry.mail(way.what, "not_sent")
            await ports.ledger.mail_failed(
                intent, MailState.NOT_SENT if first_doubt else MailState.INTENDED, str(error)
            )
            return None
        _log.error("%s will not be sent: %s", way.what, error, extra=told)
        telemetry.mail(way.what, "refused")
        await ports.ledger.mail_failed(intent, MailState.REFUSED, str(error))
        return MailState.REFUSED
    except OutcomeUnknown as error:
        _log.warning("it is not known whether the %s went out: %s", way.what, error, extra=told)
        telemetry.mail(way.what, "unknown")
        await ports.ledger.mail_failed(intent, MailState.INTENDED, str(error))
        return None
    _log.info("%s sent", way.what, extra=told)
    telemetry.mail(way.what, "sent")
    ports.handed_over.add(intent.run_id)
    await _done(intent.run_id, ports)
    return MailState.DONE


async def _done(key: str, ports: Ports) -> None:
    """Where this fails the mail is out all the same: the next look must not repeat it."""
    await ports.ledger.mail_done(key, ports.clock())
    ports.handed_over.discard(key)

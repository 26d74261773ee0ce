"""The sent-marker of a run's e-mail: an intent before sending, done after it, one sender at a time."""

from __future__ import annotations

from datetime import datetime

import msgspec

from fusebus.ledger.columns import from_columns, to_columns
from fusebus.ledger.rows import MailMarker, MailState
from fusebus.ledger.tables import Row, Tables

SUMMARY = "summary"
MAX_DETAIL = 1_000  # characters of free text that are kept


class MailLedger:
    """At most one e-mail per run."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def mail_marker(self, run_id: str) -> MailMarker | None:
        """None where nobody has meant to send yet."""
        found = await self._tables.get("mails", run_id, SUMMARY)
        return from_columns(found.columns, MailMarker, version=found.version) if found else None

    async def intend_mail(self, run_id: str, message_id: str, by: str, now: datetime) -> MailMarker:
        """Mark that `by` is about to send; the marker as it stands. Send only if `by` intends it and it is not done.

        `by` names the process's life (host, pid, start), so that its own lost answer is not taken for another's intent.
        """
        marker = MailMarker(run_id=run_id, message_id=message_id, intended_at=now, intended_by=by, tried_at=now)
        async for _ in self._tables.tries(f"mail of {run_id}"):
            if found := await self.mail_marker(run_id):
                return found
            if version := await self._tables.insert("mails", _row(marker)):
                return msgspec.structs.replace(marker, version=version)
        raise AssertionError("tries ends with an error")

    async def repeat_mail(self, marker: MailMarker, by: str, now: datetime) -> MailMarker | None:
        """Take over an intent whose sender seems to have died; None where somebody else was quicker or it is done.

        `intended_at` stays that of the first try that may be out: it bounds how long a repeat is allowed.
        """
        first = now if marker.state is MailState.NOT_SENT else marker.intended_at
        mine = msgspec.structs.replace(
            marker,
            intended_at=first,
            intended_by=by,
            tries=marker.tries + 1,
            tried_at=now,
            state=MailState.INTENDED,
            detail="",
        )
        if marker.done_at is not None:
            return None
        if version := await self._tables.replace("mails", _row(mine)):
            return msgspec.structs.replace(mine, version=version)
        found = await self.mail_marker(marker.run_id)
        ours = found is not None and found.done_at is None and (found.intended_by, found.tries) == (by, mine.tries)
        return found if ours else None

    async def mail_done(self, run_id: str, now: datetime) -> MailMarker | None:
        """Say that the mail is out; a repeat keeps the first time. None where nobody ever meant to send."""
        async for _ in self._tables.tries(f"mail of {run_id}"):
            marker = await self.mail_marker(run_id)
            if marker is None or marker.done_at is not None:
                return marker
            done = msgspec.structs.replace(marker, state=MailState.DONE, detail="", done_at=now)
            if version := await self._tables.replace("mails", _row(done)):
                return msgspec.structs.replace(done, version=version)
        raise AssertionError("tries ends with an error")

    async def mail_failed(self, marker: MailMarker, state: MailState, detail: str) -> MailMarker | None:
        """Say how the try of `marker` ended other than done; the marker as it stands then.

        Where somebody else took the intent over meanwhile, theirs stays.
        """
        ended = msgspec.structs.replace(marker, state=state, detail=detail[:MAX_DETAIL])
        if version := await self._tables.replace("mails", _row(ended)):
            return msgspec.structs.replace(ended, version=version)
        return await self.mail_marker(marker.run_id)


def _row(marker: MailMarker) -> Row:
    return Row(marker.run_id, SUMMARY, to_columns(marker), marker.version)

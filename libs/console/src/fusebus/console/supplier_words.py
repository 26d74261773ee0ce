"""What `fusebus supplier` says of a supplier in words."""

from __future__ import annotations

from datetime import datetime

import msgspec

from fusebus.console.moments import said, span_said
from fusebus.contracts import display
from fusebus.ledger import Grant, Held, SupplierRecord, Usage

MOST_HELD_SHOWN = 20


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """All there is about one supplier; no token."""

    supplier: SupplierRecord
    today: Usage
    grants: list[Grant]
    held: list[Held]


def terms_words(record: SupplierRecord) -> str:
    """The terms that are not ingest's own, in one line."""
    known = {
        "job kind": record.job_kind and record.job_kind.value,
        "lane": record.lane and record.lane.value,
        "deadline": record.deadline_seconds and span_said(record.deadline_seconds),
        "e-mail": record.email,
        "processed": "; ".join(f"{kind}: {said}" for kind, said in sorted(record.when.items())),
        "images a day": record.images_per_day and f"{record.images_per_day:,}",
        "bytes a day": record.bytes_per_day and f"{record.bytes_per_day:,}",
    }
    return ", ".join(f"{term} {value}" for term, value in known.items() if value) or "ingest's settings, no quota"


def shown_words(shown: Shown, now: datetime) -> list[str]:
    """What `show` prints; names from outside are made harmless."""
    record = shown.supplier
    why = f": {display.one_line(record.reason)}" if record.reason else ""
    words = [
        f"{record.name} is {record.state.value} since {said(record.changed_at, now)} by {record.changed_by}{why}",
        f"terms: {terms_words(record)}",
    ]
    if record.images_per_day or record.bytes_per_day:
        words.append(f"today (UTC): {shown.today.images:,} uploads, {shown.today.size:,} bytes")
    for one in shown.grants:
        end = "revoked" if one.revoked_at else "expired" if one.expires_at <= now else "holds"
        words.append(f"grant {one.grant_id}: {end}, until {said(one.expires_at, now)}, made by {one.made_by}")
    for held in shown.held[:MOST_HELD_SHOWN]:
        words.append(f"held ({held.because.value}): {display.name(held.blob_name)}")
    if len(shown.held) > MOST_HELD_SHOWN:
        words.append(f"held: {len(shown.held) - MOST_HELD_SHOWN:,} more")
    return words


def left_words(left: list[Grant]) -> list[str]:
    """What to do about grants that can't be taken back alone."""
    if not left:
        return []
    ids = ", ".join(one.grant_id for one in left)
    return [
        f"not revoked: {ids}. A managed identity signed them; storage can only end all such grants of the account:",
        "  az storage account revoke-delegation-keys --name ACCOUNT --resource-group GROUP",
        "Until then files can still arrive with them; fusebus supplier suspend holds what comes.",
    ]

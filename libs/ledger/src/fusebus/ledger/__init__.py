"""Uploads, runs, decisions and costs as rows in Azure Tables."""

from fusebus.ledger.client import Ledger
from fusebus.ledger.costs import SERVICES
from fusebus.ledger.errors import LedgerError, LedgerUnavailable
from fusebus.ledger.fleet import Controls, Pause, Pin, PoolStatus, QuotaLine, Remembered, Window
from fusebus.ledger.reruns import Rerun, picture_of, work_again
from fusebus.ledger.rows import (
    BilledDay,
    CostOfMonth,
    CostSample,
    Decision,
    Entered,
    Final,
    FinalKind,
    FinalRecorded,
    ImageClaim,
    ImageFacts,
    MailMarker,
    MailState,
    ManifestFacts,
    RunRow,
    RunState,
    UploadEntry,
    UploadRow,
    Working,
)
from fusebus.ledger.runs import RunContents
from fusebus.ledger.settings import LedgerSettings
from fusebus.ledger.suppliers import ANY_KIND, Grant, Held, HeldBecause, SupplierRecord, SupplierState, Usage, next_day

__all__ = [
    "ANY_KIND",
    "SERVICES",
    "BilledDay",
    "Controls",
    "CostOfMonth",
    "CostSample",
    "Decision",
    "Entered",
    "Final",
    "FinalKind",
    "FinalRecorded",
    "Grant",
    "Held",
    "HeldBecause",
    "ImageClaim",
    "ImageFacts",
    "Ledger",
    "LedgerError",
    "LedgerSettings",
    "LedgerUnavailable",
    "MailMarker",
    "MailState",
    "ManifestFacts",
    "Pause",
    "Pin",
    "PoolStatus",
    "QuotaLine",
    "Remembered",
    "Rerun",
    "RunContents",
    "RunRow",
    "RunState",
    "SupplierRecord",
    "SupplierState",
    "UploadEntry",
    "UploadRow",
    "Usage",
    "Window",
    "Working",
    "next_day",
    "picture_of",
    "work_again",
]

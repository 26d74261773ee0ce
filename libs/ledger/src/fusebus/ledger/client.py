"""The ledger as one object: uploads, runs, images, mails, decisions, costs, fleet and suppliers over one account."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from fusebus.ledger.costs import CostLedger
from fusebus.ledger.decisions import DecisionLedger
from fusebus.ledger.fleet import FleetLedger
from fusebus.ledger.images import ImageLedger
from fusebus.ledger.mails import MailLedger
from fusebus.ledger.orders import OrderLedger
from fusebus.ledger.reruns import RerunLedger
from fusebus.ledger.settings import LedgerSettings
from fusebus.ledger.suppliers import SupplierLedger
from fusebus.ledger.tables import Tables
from fusebus.ledger.uploads import UploadLedger


class Ledger(
    UploadLedger,
    OrderLedger,
    RerunLedger,
    ImageLedger,
    MailLedger,
    DecisionLedger,
    FleetLedger,
    CostLedger,
    SupplierLedger,
):
    """An async context manager. Every method raises LedgerUnavailable (retry later) and LedgerError, never azure's."""

    def __init__(self, settings: LedgerSettings) -> None:
        UploadLedger.__init__(self, Tables(settings))

    async def __aenter__(self) -> Self:
        await self._tables.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._tables.__aexit__(kind, error, trace)

    async def create_tables(self) -> None:
        """Make sure that every table is there: for a new account, whatever sets it up."""
        await self._tables.create()

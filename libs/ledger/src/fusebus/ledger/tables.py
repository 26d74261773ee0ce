"""The four table requests that the ledger is made of; a guarded one answers None where its guard did not hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import TableTransactionError, UpdateMode
from azure.data.tables.aio import TableClient, TableServiceClient
from azure.identity.aio import DefaultAzureCredential

from fusebus.host import SettingsError, environment_has_proxies
from fusebus.ledger.columns import Columns, key
from fusebus.ledger.errors import LedgerError, LedgerUnavailable, translated
from fusebus.ledger.settings import LedgerSettings

TABLES = (
    "runs",
    "current",
    "assigned",
    "images",
    "mails",
    "decisions",
    "costs",
    "controls",
    "pools",
    "windows",
    "suppliers",
    "usage",
)
GUARD_STATUS = frozenset({404, 409, 412})
"""Answers to a guarded write whose row is missing, is there already, or has another ETag."""


class Row(msgspec.Struct, frozen=True):
    """One stored entity; `version` is its ETag."""

    partition: str
    name: str
    columns: Columns
    version: str = ""


class Tables:
    """The ledger's tables in one account, as an async context manager. Raises LedgerUnavailable, LedgerError."""

    def __init__(self, settings: LedgerSettings) -> None:
        self._settings = settings
        self._exits = AsyncExitStack()
        self._service: TableServiceClient | None = None
        self._clients: dict[str, TableClient] = {}

    async def __aenter__(self) -> Self:
        self._service = await self._exits.enter_async_context(await self._connect())
        self._clients = {name: self._service.get_table_client(self._settings.table_prefix + name) for name in TABLES}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._service, self._clients = None, {}
        await self._exits.aclose()

    async def create(self) -> None:
        """Make sure that every table is there."""
        for name in TABLES:
            with translated(f"creation of table {name}"):
                try:
                    await self._table(name).create_table()
                except ResourceExistsError:
                    continue

    async def get(self, table: str, partition: str, name: str) -> Row | None:
        """One row, None where there is none."""
        with translated(f"read of {table} {partition} {name}"):
            try:
                return _row(await self._table(table).get_entity(key(partition), key(name)))
            except ResourceNotFoundError as error:
                _refuse_a_missing_table(table, error)
                return None

    async def insert(self, table: str, row: Row) -> str | None:
        """The new row's version; None where a row of that name is there already, perhaps by our own repeated request.

        Who is told None reads the row and compares.
        """
        with translated(f"insert into {table} {row.partition} {row.name}"):
            try:
                return str((await self._table(table).create_entity(_entity(row)))["etag"])
            except ResourceExistsError:
                return None

    async def replace(self, table: str, row: Row) -> str | None:
        """The row's new version; None where it has no longer `row.version`, perhaps by our own repeated request."""
        with translated(f"update of {table} {row.partition} {row.name}"):
            try:
                found = await self._table(table).update_entity(_entity(row), mode=UpdateMode.REPLACE, **_guard(row))
            except (ResourceModifiedError, ResourceNotFoundError) as error:
                _refuse_a_missing_table(table, error)
                return None
            return str(found["etag"])

    async def write_together(self, table: str, rows: Sequence[Row]) -> list[str] | None:
        """All rows of one partition or none: those with a version are replaced, the others inserted.

        Their new versions; None where any guard did not hold.
        """
        operations: list[Any] = [
            ("update", _entity(row), {"mode": UpdateMode.REPLACE, **_guard(row)})
            if row.version
            else ("create", _entity(row))
            for row in rows
        ]
        with translated(f"transaction in {table} {rows[0].partition}"):
            try:
                answers = await self._table(table).submit_transaction(operations)
            except TableTransactionError as error:
                if error.status_code not in GUARD_STATUS:
                    raise
                _refuse_a_missing_table(table, error)
                return None
            return [str(answer["etag"]) for answer in answers]

    async def query(
        self, table: str, partition: str | None, start: str, end: str, limit: int | None = None
    ) -> AsyncIterator[Row]:
        """Rows of a partition (None: of all) whose names are in `start` <= name < `end`, ordered within a partition."""
        condition = "RowKey ge @start and RowKey lt @end"
        parameters = {"start": start, "end": end}
        if partition is not None:
            condition = f"PartitionKey eq @partition and {condition}"
            parameters["partition"] = partition
        count = 0
        with translated(f"query of {table} {partition}"):
            pages = self._table(table).query_entities(condition, parameters=parameters)
            async for found in pages:
                yield _row(found)
                count += 1
                if count == limit:
                    return

    async def tries(self, what: str) -> AsyncIterator[int]:
        """Loop over guarded writes: each further try comes after a random pause, the end is LedgerUnavailable."""
        for number in range(self._settings.contention_tries):
            if number:
                longest = self._settings.contention_backoff_seconds * min(2**number, 16)
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - spreads writers, guards nothing
            yield number
        raise LedgerUnavailable(f"{what}: others changed it {self._settings.contention_tries} times meanwhile")

    def _table(self, name: str) -> TableClient:
        if name not in self._clients:
            raise RuntimeError("the ledger is used outside of its `async with`")
        return self._clients[name]

    async def _connect(self) -> TableServiceClient:
        settings = self._settings
        patience: dict[str, Any] = {
            "connection_timeout": settings.connect_timeout_seconds,
            "read_timeout": settings.read_timeout_seconds,
            "retry_total": settings.retries,
            "retry_backoff_factor": settings.retry_backoff_seconds,
            "use_env_settings": environment_has_proxies(),
        }
        if settings.connection:
            return TableServiceClient.from_connection_string(settings.connection.reveal(), **patience)
        if not settings.endpoint:
            raise SettingsError(["neither FUSEBUS_LEDGER_CONNECTION nor FUSEBUS_LEDGER_ENDPOINT is set"])
        credential = await self._exits.enter_async_context(DefaultAzureCredential())
        return TableServiceClient(settings.endpoint, credential=credential, **patience)


def _entity(row: Row) -> dict[str, Any]:
    return {"PartitionKey": key(row.partition), "RowKey": key(row.name), **row.columns}


def _row(found: Any) -> Row:
    columns: Mapping[str, Any] = {k: v for k, v in found.items() if k not in ("PartitionKey", "RowKey")}
    return Row(found["PartitionKey"], found["RowKey"], columns, found.metadata["etag"])


def _guard(row: Row) -> dict[str, Any]:
    return {"etag": row.version, "match_condition": MatchConditions.IfNotModified}


def _refuse_a_missing_table(table: str, error: Any) -> None:
    """A table that is not there answers 404 as a missing row does, but waiting or inserting can't help it."""
    if "TableNotFound" in str(getattr(error, "error_code", "")) or "TableNotFound" in str(error):
        raise LedgerError(f"table {table} does not exist") from error

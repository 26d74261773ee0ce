"""Durability: everything the engine must still know after a crash, in one SQLite file per data directory."""

from fusebus.servicebus.store.commits import GroupCommit
from fusebus.servicebus.store.database import Sync, UnknownFormat
from fusebus.servicebus.store.marks import DataDirectoryInUse
from fusebus.servicebus.store.store import DEFAULT_RESERVE_BYTES, Store

__all__ = ["DEFAULT_RESERVE_BYTES", "DataDirectoryInUse", "GroupCommit", "Store", "Sync", "UnknownFormat"]

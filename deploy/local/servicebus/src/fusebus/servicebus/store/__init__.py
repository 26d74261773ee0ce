"""Durability: everything the engine must still know after a crash, in one SQLite file per data directory."""

from fusebus.servicebus.store.database import DataDirectoryInUse, Sync, UnknownFormat
from fusebus.servicebus.store.store import Store

__all__ = ["DataDirectoryInUse", "Store", "Sync", "UnknownFormat"]

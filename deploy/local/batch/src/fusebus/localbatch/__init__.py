"""Azure Batch on one machine."""

from fusebus.localbatch.entities import AccountLimits
from fusebus.localbatch.server import LocalBatch, LocalBatchOptions

__all__ = ["AccountLimits", "LocalBatch", "LocalBatchOptions"]

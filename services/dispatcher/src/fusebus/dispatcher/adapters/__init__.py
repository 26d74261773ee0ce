"""What only the dispatcher speaks to: Azure Batch, and the lease that makes one of several dispatchers the leader."""

from fusebus.dispatcher.adapters.batch import BatchFleet
from fusebus.dispatcher.adapters.fleets import Fleets
from fusebus.dispatcher.adapters.lease import BlobLeader

__all__ = ["BatchFleet", "BlobLeader", "Fleets"]

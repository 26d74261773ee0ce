"""Worker loop and publisher over azure-servicebus; no azure type leaves this package."""

from fusebus.bus.administration import Depth
from fusebus.bus.client import Bus
from fusebus.bus.context import Context, Handler
from fusebus.bus.dead_letters import DeadLetter
from fusebus.bus.dealing import Dealt
from fusebus.bus.errors import BusError, ConsumerDead, PublishFailed
from fusebus.bus.lanes import apart, by_rank
from fusebus.bus.lately import Lately
from fusebus.bus.publisher import Publisher
from fusebus.bus.settings import BusSettings, ConsumerSettings, SessionSettings
from fusebus.bus.settlement import Parcel
from fusebus.bus.taking_out import Taken
from fusebus.bus.worker import Consumer

__all__ = [
    "Bus",
    "BusError",
    "BusSettings",
    "Consumer",
    "ConsumerDead",
    "ConsumerSettings",
    "Context",
    "DeadLetter",
    "Dealt",
    "Depth",
    "Handler",
    "Lately",
    "Parcel",
    "PublishFailed",
    "Publisher",
    "SessionSettings",
    "Taken",
    "apart",
    "by_rank",
]

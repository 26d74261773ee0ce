"""What can go wrong on the bus, in our words: the SDK's exceptions are translated where they arise and nowhere else."""


class BusError(Exception):
    """Base of everything this library raises."""


class PublishFailed(BusError):
    """The topic did not take the messages within the limit; none, some or all of them may have arrived.

    Publishing the same again is safe: message ids are stable and topics detect duplicates.
    """


class ConsumerDead(BusError):
    """Messages wait, slots are free and yet nothing is received, even after a rebuild: the process should end."""


class LockLost(BusError):
    """Somebody else may have the message by now; nothing may be published or settled for it any more."""


class LinkBroken(BusError):
    """The broker did not answer as it should; open the link again. A passing state, never seen outside."""


class Busy(LinkBroken):
    """The broker asked for patience; that is an answer, so the link works."""

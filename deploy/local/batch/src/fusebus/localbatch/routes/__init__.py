"""The HTTP face: ARM calls, data-plane calls, the nodes' metadata service and the administration of faults."""

from fusebus.localbatch.routes.application import Front, application

__all__ = ["Front", "application"]

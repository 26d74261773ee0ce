"""The administration API: entities, rules and their true counts as ATOM feeds over HTTP."""

from fusebus.servicebus.admin.administration import Administration

__all__ = ["Administration"]

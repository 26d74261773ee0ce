"""A process's life: settings, signals, health, logs, telemetry."""

from fusebus.host.health import Health, HealthSettings
from fusebus.host.life import Life, run_service
from fusebus.host.logs import log_fields
from fusebus.host.malloc import MallocOption, set_malloc
from fusebus.host.proxies import environment_has_proxies
from fusebus.host.redaction import redact
from fusebus.host.settings import Secret, SettingsError, describe_settings, environment_for_people, load_settings
from fusebus.host.stopping import until_stopped
from fusebus.host.telemetry import metrics_are_read

__all__ = [
    "Health",
    "HealthSettings",
    "Life",
    "MallocOption",
    "Secret",
    "SettingsError",
    "describe_settings",
    "environment_for_people",
    "environment_has_proxies",
    "load_settings",
    "log_fields",
    "metrics_are_read",
    "redact",
    "run_service",
    "set_malloc",
    "until_stopped",
]

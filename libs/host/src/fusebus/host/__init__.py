"""A process's life: settings, signals, health, logs, telemetry."""

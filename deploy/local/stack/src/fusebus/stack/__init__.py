"""Starts the embedded stack: broker, Azurite, Batch and the services."""

"""The storage layout over azure-storage-blob."""

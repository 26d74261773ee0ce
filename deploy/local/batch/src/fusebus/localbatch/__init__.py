"""Azure Batch on one machine."""

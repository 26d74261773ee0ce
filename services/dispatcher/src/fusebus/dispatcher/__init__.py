"""Sizes the Azure Batch pool from queue depth."""

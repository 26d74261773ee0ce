"""Validates uploads."""

"""Uploads, runs, decisions and costs as rows in Azure Tables."""

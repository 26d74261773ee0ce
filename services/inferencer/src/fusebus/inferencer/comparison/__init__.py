"""Compares two model versions on the same photos: what each finds, where they disagree, how fast they are."""

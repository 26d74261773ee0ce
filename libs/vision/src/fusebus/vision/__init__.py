"""Decode, pre- and post-processing, masks, annotation."""

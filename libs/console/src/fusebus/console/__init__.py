"""The fusebus command for people."""

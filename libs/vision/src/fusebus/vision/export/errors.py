"""Owns the errors of the way from a checkpoint to a served model; each text says what is wrong and what to do."""


class CheckpointError(Exception):
    """The checkpoint, or a prompt for it, can't be taken."""


class ParityError(Exception):
    """The exported graph does not compute what the original computes."""


class HelperEnded(Exception):
    """A process that was to share the training ended before its time; what it said is on standard error."""

"""Who gives an order at this machine, and in which words it is kept why."""

from __future__ import annotations

import getpass
import socket

LONGEST_REASON = 500  # characters


def this_person() -> str:
    """`user@machine`, for the ledger's record of who did it."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user number without a name
        return f"somebody@{socket.gethostname()}"


def short_reason(reason: str) -> str:
    """In one line of at most LONGEST_REASON characters."""
    return " ".join(reason.split())[:LONGEST_REASON]

"""What can go wrong with the ledger, in our words: foreign exceptions are translated here and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from azure.core.exceptions import AzureError, DecodeError, HttpResponseError, ServiceRequestError, ServiceResponseError

PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class LedgerError(Exception):
    """Base: a request failed. Raised itself where no repeat will help: a missing table, a refused credential."""


class LedgerUnavailable(LedgerError):
    """The tables did not answer, or others kept changing the row, for longer than our retries last: retry later."""


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise our own errors in place of the SDK's; `what` names the request in the text."""
    try:
        yield
    except HttpResponseError as error:
        # No status: the answer broke off or could not be read.
        passing = error.status_code is None or error.status_code in PASSING_STATUS
        code = getattr(error, "error_code", "") or ""
        raise (LedgerUnavailable if passing else LedgerError)(f"{what}: {error.status_code} {code}") from error
    except (ServiceRequestError, ServiceResponseError, DecodeError, TimeoutError) as error:
        raise LedgerUnavailable(f"{what}: {error}") from error
    except AzureError as error:
        raise LedgerError(f"{what}: {error}") from error

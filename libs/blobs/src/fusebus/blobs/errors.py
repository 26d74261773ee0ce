"""What can go wrong with a blob, in our words: foreign exceptions are translated here and nowhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from azure.core.exceptions import (
    AzureError,
    DecodeError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
UNUSABLE_NAME_CODES = frozenset({"InvalidUri", "OutOfRangeInput", "InvalidResourceName", "InvalidInput"})
"""What storage answers for a name that no blob can have: there is no such blob."""


class StorageError(Exception):
    """Base: a request to storage failed. Raised itself where no repeat will help (credential refused, say)."""

    status: int | None = None
    """What storage answered (HTTP); None where it did not answer, or not so."""


class StorageUnavailable(StorageError):
    """Storage did not answer, or asked to come back later, for longer than our retries last: worth a later retry."""


class BlobVanished(StorageError):
    """There is no such blob (any more)."""


class BlobChanged(StorageError):
    """The blob has another ETag than the one asked for: its content is not what the caller was promised."""


class BlobExists(StorageError):
    """There is such a blob already, with other content than the one to be created."""


class BlobTooLarge(StorageError):
    """The blob has more bytes than the caller allows; nothing was kept."""


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise our own errors in place of the SDK's; `what` names the request in the text."""
    try:
        yield
    except ResourceNotFoundError as error:
        raise BlobVanished(f"{what}: not found") from error
    except ResourceModifiedError as error:
        raise BlobChanged(f"{what}: has another ETag") from error
    except ResourceExistsError as error:
        raise BlobExists(f"{what}: is there already") from error
    except HttpResponseError as error:
        raise _of_status(what, error) from error
    except (ServiceRequestError, ServiceResponseError, DecodeError, TimeoutError) as error:
        raise StorageUnavailable(f"{what}: {error}") from error
    except AzureError as error:
        raise StorageError(f"{what}: {error}") from error


def _of_status(what: str, error: HttpResponseError) -> StorageError:
    code = str(getattr(error, "error_code", "") or "")
    if error.status_code == 412:
        return BlobChanged(f"{what}: has another ETag")
    if error.status_code == 404 or (error.status_code == 400 and code in UNUSABLE_NAME_CODES):
        return BlobVanished(f"{what}: {code or 'not found'}")
    # No status: the answer broke off or could not be read.
    passing = error.status_code is None or error.status_code in PASSING_STATUS
    kind = StorageUnavailable if passing else StorageError
    translation = kind(f"{what}: {error.status_code} {code} {error.reason}")
    translation.status = error.status_code
    return translation

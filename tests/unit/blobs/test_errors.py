"""Foreign exceptions become our own, and each says whether a later try may help."""

import pytest
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseTimeoutError,
)

from fusebus.blobs import BlobChanged, BlobVanished, StorageError, StorageUnavailable
from fusebus.blobs.errors import translated


def answer(status: int, code: str = "") -> HttpResponseError:
    error = HttpResponseError("an answer")
    error.status_code, error.error_code = status, code
    return error


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (ResourceNotFoundError("gone"), BlobVanished),
        (ResourceModifiedError("other ETag"), BlobChanged),
        (answer(412), BlobChanged),
        (answer(404), BlobVanished),
        (answer(400, "InvalidUri"), BlobVanished),
        (answer(400, "InvalidHeaderValue"), StorageError),
        (answer(403), StorageError),
        (answer(409), StorageError),
        (ClientAuthenticationError("who are you"), StorageUnavailable),  # carries no status here: may pass
        (answer(429), StorageUnavailable),
        (answer(500), StorageUnavailable),
        (answer(503), StorageUnavailable),
        (ServiceRequestError("no route"), StorageUnavailable),
        (ServiceResponseTimeoutError("no answer"), StorageUnavailable),
        (IncompleteReadError("cut short"), StorageUnavailable),
        (AzureError("something else"), StorageError),
    ],
    ids=repr,
)
def test_each_foreign_exception_becomes_one_of_ours(foreign: Exception, ours: type[StorageError]) -> None:
    with pytest.raises(StorageError) as caught, translated("request"):
        raise foreign
    assert type(caught.value) is ours
    assert caught.value.__cause__ is foreign


def test_an_exception_of_our_own_code_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), translated("request"):
        _ = 1 / 0

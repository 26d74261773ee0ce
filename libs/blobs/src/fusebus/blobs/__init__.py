"""The storage layout over azure-storage-blob."""

from fusebus.blobs import layout
from fusebus.blobs.client import BLOCK_BLOB, BlobProperties, Blobs, ListedBlob
from fusebus.blobs.digest import DigestMismatch, require_digest
from fusebus.blobs.errors import BlobChanged, BlobExists, BlobTooLarge, BlobVanished, StorageError, StorageUnavailable
from fusebus.blobs.grants import GrantedUrl, GrantUnavailable
from fusebus.blobs.pinned import read_accepted
from fusebus.blobs.settings import BlobSettings

__all__ = [
    "BLOCK_BLOB",
    "BlobChanged",
    "BlobExists",
    "BlobProperties",
    "BlobSettings",
    "BlobTooLarge",
    "BlobVanished",
    "Blobs",
    "DigestMismatch",
    "GrantUnavailable",
    "GrantedUrl",
    "ListedBlob",
    "StorageError",
    "StorageUnavailable",
    "layout",
    "read_accepted",
    "require_digest",
]

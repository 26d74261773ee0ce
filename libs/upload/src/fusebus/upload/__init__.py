"""Sends a folder of photos with a create-only link, by the standard library alone."""

from fusebus.upload.files import LocalFile, files_in, unfit_name
from fusebus.upload.link import Link, LinkRefused, LinkUnfit
from fusebus.upload.receipt import Receipt, ReceiptBroken
from fusebus.upload.sending import FileOutcome, Sent, name_is_taken, send_files

__all__ = [
    "FileOutcome",
    "Link",
    "LinkRefused",
    "LinkUnfit",
    "LocalFile",
    "Receipt",
    "ReceiptBroken",
    "Sent",
    "files_in",
    "name_is_taken",
    "send_files",
    "unfit_name",
]
